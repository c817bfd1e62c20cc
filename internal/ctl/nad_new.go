// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/lint"
	"github.com/plexus-cni/plexus/nad"
)

// scaffold is what nad new makes a definition of: its flags.
type scaffold struct {
	typ, namespace, name           string
	master, bridge, device, mode   string
	resource, ipam                 string
	vlan, mtu                      int
	subnets                        []string
	vlanIsSet, mtuIsSet, modeIsSet bool
}

func nadNewCommand() *cobra.Command {
	var s scaffold
	cmd := &cobra.Command{
		Use:   "new bridge|macvlan|ipvlan|vlan|sriov|host-device NAME",
		Short: "Print a NetworkAttachmentDefinition to start from",
		Long: `Print a NetworkAttachmentDefinition to start from. It passes nad lint, assigns addresses of both families, and lets pods ask for their own MAC
and addresses where the plugin supports that. Subnets that are not given are derived from the name: the same each time, and hardly ever those
of another network.`,
		Example: `  plexusctl nad new macvlan storage --master eth1 --subnet 10.56.0.0/24 --subnet fd00:56::/64
  plexusctl nad new vlan cameras -n shop --master eth1 --vlan 42 --mtu 1400
  plexusctl nad new sriov fast --resource intel.com/nic --vlan 7
  plexusctl nad new bridge lab | plexusctl nad lint -`,
		Args:      arguments(2, 2),
		ValidArgs: scaffoldTypes(),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			s.typ, s.name = args[0], args[1]
			s.vlanIsSet, s.mtuIsSet, s.modeIsSet = cmd.Flags().Changed("vlan"), cmd.Flags().Changed("mtu"), cmd.Flags().Changed("mode")
			return s.check()
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := s.manifest()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&s.namespace, "namespace", "n", "default", "define the network in `NAMESPACE`")
	flags.StringVar(&s.master, "master", "", "attach pods to `LINK` of the node (macvlan, ipvlan, vlan)")
	flags.StringVar(&s.bridge, "bridge", "", "attach pods to the bridge `LINK`, which the plugin creates if needed (bridge; default NAME, shortened)")
	flags.StringVar(&s.device, "device", "", "move `LINK` of the node into the pod (host-device)")
	flags.StringVar(&s.resource, "resource", "", "have pods consume one of the device `RESOURCE` (sriov, host-device)")
	flags.StringVar(&s.mode, "mode", "", "attach in `MODE` (macvlan, ipvlan; default bridge and l2)")
	flags.IntVar(&s.vlan, "vlan", 0, "tag with VLAN `ID` (vlan, sriov, bridge)")
	flags.IntVar(&s.mtu, "mtu", 0, "set the MTU to `BYTES`")
	flags.StringVar(&s.ipam, "ipam", ipamHostLocal, "assign addresses with `PLUGIN`: host-local, whereabouts, dhcp, static (pods name their own) or none")
	flags.StringArrayVar(&s.subnets, "subnet", nil, "assign addresses of `CIDR`; may be repeated (host-local, whereabouts)")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("ipam", cobra.FixedCompletions([]cobra.Completion{ipamHostLocal, ipamWhereabouts, ipamDHCP, ipamStatic, ipamNone}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// The IPAM plugins of scaffolds.
const (
	ipamHostLocal = "host-local"
	ipamDHCP      = "dhcp"
	ipamStatic    = "static"
	ipamNone      = "none"
	// ipamWhereabouts is not among the reference plugins: the cluster has to have it.
	ipamWhereabouts = "whereabouts"
)

// countsAddresses reports whether the IPAM plugin gives addresses of subnets.
func (s *scaffold) countsAddresses() bool {
	return s.ipam == ipamHostLocal || s.ipam == ipamWhereabouts
}

func scaffoldTypes() []string {
	return []string{"bridge", "macvlan", "ipvlan", "vlan", "sriov", "host-device"}
}

// check refuses flags that the type has no use for, and asks for those that it needs. What their values may be is for nad lint to say.
func (s *scaffold) check() error {
	if !slices.Contains(scaffoldTypes(), s.typ) {
		return fmt.Errorf("no scaffold of type %q: use one of %s", s.typ, strings.Join(scaffoldTypes(), ", "))
	}
	if _, err := nad.ParseRef(s.namespace+"/"+s.name, ""); err != nil {
		return err
	}
	for _, f := range []struct {
		flag  string
		given bool
		types []string
	}{
		{"master", s.master != "", []string{"macvlan", "ipvlan", "vlan"}},
		{"bridge", s.bridge != "", []string{"bridge"}},
		{"device", s.device != "", []string{"host-device"}},
		{"resource", s.resource != "", []string{"sriov", "host-device"}},
		{"mode", s.modeIsSet, []string{"macvlan", "ipvlan"}},
		{"vlan", s.vlanIsSet, []string{"vlan", "sriov", "bridge"}},
		{"mtu", s.mtuIsSet, []string{"bridge", "macvlan", "ipvlan", "vlan", "sriov"}},
	} {
		if f.given && !slices.Contains(f.types, s.typ) {
			return fmt.Errorf("--%s has no meaning for %s, only for %s: leave it out", f.flag, s.typ, strings.Join(f.types, ", "))
		}
	}
	switch {
	case !slices.Contains([]string{ipamHostLocal, ipamWhereabouts, ipamDHCP, ipamStatic, ipamNone}, s.ipam):
		return fmt.Errorf("--ipam %q: use host-local, whereabouts, dhcp, static or none", s.ipam)
	case len(s.subnets) > 0 && !s.countsAddresses():
		return fmt.Errorf("--subnet has no meaning for --ipam %s, only for host-local and whereabouts: leave it out", s.ipam)
	case s.master == "" && slices.Contains([]string{"macvlan", "ipvlan", "vlan"}, s.typ):
		return fmt.Errorf("%s needs a link of the node: name it with --master LINK", s.typ)
	case s.typ == "vlan" && !s.vlanIsSet:
		return fmt.Errorf("vlan needs the ID of the VLAN: name it with --vlan ID")
	case s.typ == "sriov" && s.resource == "":
		return fmt.Errorf("sriov needs a device resource: name it with --resource, as in the node's status.allocatable")
	case s.typ == "host-device" && (s.resource == "") == (s.device == ""):
		return fmt.Errorf("host-device needs a device: name it with either --device LINK or --resource RESOURCE")
	}
	return nil
}

// scaffoldConf is the configuration that is printed, in the order in which people read it.
type scaffoldConf struct {
	CNIVersion   string          `json:"cniVersion"`
	Type         string          `json:"type"`
	Bridge       string          `json:"bridge,omitempty"`
	Master       string          `json:"master,omitempty"`
	Device       string          `json:"device,omitempty"`
	Mode         string          `json:"mode,omitempty"`
	VLANID       *int            `json:"vlanId,omitempty"`
	VLAN         *int            `json:"vlan,omitempty"`
	MTU          *int            `json:"mtu,omitempty"`
	IsGateway    bool            `json:"isGateway,omitempty"`
	Capabilities map[string]bool `json:"capabilities,omitempty"`
	IPAM         *scaffoldIPAM   `json:"ipam,omitempty"`
}

type scaffoldIPAM struct {
	Type   string              `json:"type"`
	Ranges [][]scaffoldSubnets `json:"ranges,omitempty"`
	// IPRanges are those of whereabouts.
	IPRanges []scaffoldRange `json:"ipRanges,omitempty"`
}

type scaffoldRange struct {
	Range string `json:"range"`
}

type scaffoldSubnets struct {
	Subnet string `json:"subnet"`
}

func (s *scaffold) conf() scaffoldConf {
	c := scaffoldConf{CNIVersion: "1.0.0", Type: s.typ, Master: s.master, Device: s.device, Capabilities: map[string]bool{}}
	switch s.typ {
	case "bridge":
		c.Bridge, c.IsGateway = cmp.Or(s.bridge, bridgeName(s.name)), s.ipam == ipamHostLocal
	case "macvlan":
		c.Mode = cmp.Or(s.mode, "bridge")
	case "ipvlan":
		c.Mode = cmp.Or(s.mode, "l2")
	}
	if s.vlanIsSet {
		if s.typ == "vlan" {
			c.VLANID = &s.vlan
		} else {
			c.VLAN = &s.vlan
		}
	}
	if s.mtuIsSet {
		c.MTU = &s.mtu
	}
	if slices.Contains([]string{"bridge", "macvlan", "sriov"}, s.typ) {
		c.Capabilities["mac"] = true
	}
	if s.ipam == ipamNone {
		return c
	}
	c.IPAM = &scaffoldIPAM{Type: s.ipam}
	if s.ipam != ipamDHCP {
		c.Capabilities["ips"] = true
	}
	if s.ipam == ipamHostLocal {
		for _, subnet := range s.ranges() {
			c.IPAM.Ranges = append(c.IPAM.Ranges, []scaffoldSubnets{{subnet}})
		}
	}
	if s.ipam == ipamWhereabouts {
		delete(c.Capabilities, "ips") // it gives what is free, and nothing that is asked for
		for _, subnet := range s.ranges() {
			c.IPAM.IPRanges = append(c.IPAM.IPRanges, scaffoldRange{subnet})
		}
	}
	return c
}

// bridgeName is what the bridge of a network is called: as the network, or, where that is longer than Linux allows, in short, and unlike
// that of another long name.
func bridgeName(network string) string {
	const most, prefix = 15, 8
	name := strings.ReplaceAll(network, ".", "-")
	if len(name) <= most {
		return name
	}
	h := sha256.Sum256([]byte(network))
	return fmt.Sprintf("%s-%x", name[:prefix], h[:3])
}

// ranges are the subnets that were given, or one of each family, made up from the name: an IPv4 one out of what few clusters use, and
// a unique local IPv6 one (RFC 4193 §3).
func (s *scaffold) ranges() []string {
	if len(s.subnets) > 0 {
		return s.subnets
	}
	h := sha256.Sum256([]byte(s.namespace + "/" + s.name))
	v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 160 + h[0]%64, h[1], 0}), 24)
	v6 := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, h[2], h[3], h[4], h[5], h[6]}), 64)
	return []string{v4.String(), v6.String()}
}

// manifest is the definition as YAML. One that nad lint finds a mistake in is an error: it comes from a flag.
func (s *scaffold) manifest() ([]byte, error) {
	conf, err := json.MarshalIndent(s.conf(), "    ", "  ")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if s.ipam == ipamHostLocal {
		b.WriteString("# host-local assigns addresses on each node by itself. If the network spans nodes, give each node a range of its own, or use an IPAM\n# plugin that assigns them for the whole cluster: --ipam whereabouts.\n")
	}
	if s.countsAddresses() && len(s.subnets) == 0 {
		b.WriteString("# The subnets are derived from the name: replace them with those of your network.\n")
	}
	if s.typ == "bridge" && s.bridge == "" && bridgeName(s.name) != s.name {
		b.WriteString("# Linux allows 15 bytes for the name of the bridge, and no dots: --bridge names it otherwise.\n")
	}
	fmt.Fprintf(&b, "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata:\n  name: %q\n  namespace: %q\n", s.name, s.namespace)
	if s.resource != "" {
		fmt.Fprintf(&b, "  annotations:\n    %s: %q\n", annotations.ResourceNameKey, s.resource)
	}
	fmt.Fprintf(&b, "spec:\n  config: |\n    %s\n", conf)
	found, _ := lint.Run([]lint.File{{Name: s.name, Data: b.Bytes()}}, lint.Options{})
	for _, f := range found {
		if f.Severity.AtLeast(finding.Warning) {
			return nil, fmt.Errorf("%s: %s: correct the flag", cmp.Or(f.Field, "metadata"), f.Text)
		}
	}
	return b.Bytes(), nil
}
