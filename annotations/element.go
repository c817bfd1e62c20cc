// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/plexus-cni/plexus/nad"
)

const (
	maxNamespaceBytes = 63  // RFC 1123 label
	maxNameBytes      = 253 // RFC 1123 subdomain, as Kubernetes bounds it
	maxInterfaceBytes = 15  // Linux IFNAMSIZ without its NUL
	// maxDeviceIDBytes bounds a device ID, which becomes part of a file name: a PCI address has 12 bytes, auxiliary devices a few more.
	maxDeviceIDBytes = 128
	// maxBurstBits is where the reference bandwidth plugin stops: it hands the kernel bytes in 32 bits.
	maxBurstBits = math.MaxUint32*8 - 1
	// maxQuotedBytes bounds how much of a wrong value an error repeats.
	maxQuotedBytes = 64
)

// Element is one network selection element (NPWG v1.3 §4.1.2), in the canonical form that the parsers of this package return.
// Its JSON is that of the annotation.
type Element struct {
	// Name and Namespace name the NetworkAttachmentDefinition.
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	// Interface is the name asked for in the sandbox, "" for none in particular.
	Interface string `json:"interface,omitempty"`
	// MAC is a hardware address of 6, 8 or 20 bytes, lower-case with colons.
	MAC string `json:"mac,omitempty"`
	// IPs are addresses, with or without prefix length.
	IPs []string `json:"ips,omitempty"`
	// InfinibandGUID is a GUID of 8 bytes, lower-case with colons.
	InfinibandGUID string `json:"infiniband-guid,omitempty"`
	// Bandwidth limits the attachment; nil for no limit.
	Bandwidth *Bandwidth `json:"bandwidth,omitempty"`
	// PortMappings forward ports of the node.
	PortMappings []PortMapping `json:"portMappings,omitempty"`
	// CNIArgs is merged over args.cni of each plugin; its values are compact JSON.
	CNIArgs map[string]json.RawMessage `json:"cni-args,omitempty"`
	// DefaultRoute are the gateways of the pod's default routes, at most one of a family. Nil asks for nothing; empty but not nil
	// asks that the default routes that the network itself sets be the pod's.
	DefaultRoute []netip.Addr `json:"default-route,omitzero"`
	// DeviceID asks for a device. It reaches the plugins that declare the capability, and chooses among the devices that the pod was given.
	DeviceID string `json:"deviceID,omitempty"`
	// IPAMClaimReference names an IPAMClaim in the pod's namespace.
	IPAMClaimReference string `json:"ipam-claim-reference,omitempty"`
}

// Bandwidth limits an attachment: rates in bits per second, bursts in bits, 0 for no limit in that direction.
type Bandwidth struct {
	IngressRate  int64 `json:"ingressRate"`
	IngressBurst int64 `json:"ingressBurst"`
	EgressRate   int64 `json:"egressRate"`
	EgressBurst  int64 `json:"egressBurst"`
}

// PortMapping forwards a port of the node to one of the attachment.
type PortMapping struct {
	// HostPort and ContainerPort are 1 to 65535.
	HostPort      int `json:"hostPort"`
	ContainerPort int `json:"containerPort"`
	// Protocol is tcp, udp or sctp.
	Protocol string `json:"protocol"`
	// HostIP is the node's address that the mapping is limited to, "" for all.
	HostIP string `json:"hostIP,omitempty"`
}

// String returns the element as the short form writes it, for messages: namespace/name@interface.
func (e Element) String() string {
	s := e.Namespace + "/" + e.Name
	if e.Interface != "" {
		s += "@" + e.Interface
	}
	return s
}

// ValidateInterfaceName says whether a pod may ask for an interface of that name: 1 to 15 bytes of letters, digits, "_", "-" and ".", not
// beginning with "-" or ".", and not "lo". Linux accepts more (dev_valid_name), and so does NPWG v1.3 §4.1.2.1.2; but the name reaches
// plugins as CNI_IFNAME, some of which are shell scripts, and all of which may run a program with it as an argument. The error matches
// ErrInvalid and says how to correct the name.
func ValidateInterfaceName(name string) error {
	if err := checkInterfaceName(name); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func checkInterfaceName(name string) error {
	unfit := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_-.", r)
	}
	switch {
	case name == "":
		return fieldError("interface", name, "is empty: give 1 to %d bytes", maxInterfaceBytes)
	case len(name) > maxInterfaceBytes:
		return fieldError("interface", name, "has %d bytes and Linux allows %d: shorten it", len(name), maxInterfaceBytes)
	case name == "." || name == ".." || name == "lo":
		return fieldError("interface", name, "is a reserved name: choose another, like net1")
	case strings.ContainsFunc(name, unfit):
		return fieldError("interface", name, `has a character that is not allowed: use letters, digits, "-", "_" and "."`)
	case name[0] == '-' || name[0] == '.':
		return fieldError("interface", name, `begins with %q: begin with a letter, a digit or "_"`, name[:1])
	}
	return nil
}

// Validate checks an element that somebody else parsed, as [ParseNetworks] checks one that a pod's author wrote, and returns it in
// canonical form. The error matches ErrInvalid.
func (e Element) Validate() (Element, error) {
	e.IPs, e.PortMappings = slices.Clone(e.IPs), slices.Clone(e.PortMappings)
	e.CNIArgs = maps.Clone(e.CNIArgs)
	if e.Bandwidth != nil {
		b := *e.Bandwidth
		e.Bandwidth = &b
	}
	var texts []string
	if e.DefaultRoute != nil {
		texts = []string{}
	}
	for _, gw := range e.DefaultRoute {
		texts = append(texts, gw.String())
	}
	routes, err := gateways(texts)
	if err == nil {
		e.DefaultRoute = routes
		e, err = e.validated("")
	}
	if err != nil {
		return Element{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return e, nil
}

// validated returns the element in canonical form, in the given namespace if it names none; the error names the field, the value
// and how to fix it.
func (e Element) validated(namespace string) (Element, error) {
	if e.Namespace == "" {
		e.Namespace = namespace
	}
	for _, check := range []func() error{
		e.checkNames, e.canonicalizeAddresses, e.canonicalizePortMappings, e.canonicalizeBandwidth, e.canonicalizeCNIArgs, e.checkDevice,
	} {
		if err := check(); err != nil {
			return Element{}, err
		}
	}
	return e, nil
}

func (e *Element) checkNames() error {
	switch {
	case e.Name == "":
		return errors.New(`name is missing: name the NetworkAttachmentDefinition`)
	case !nad.IsSubdomain(e.Name):
		return fieldError("name", e.Name, `is no name of a NetworkAttachmentDefinition: use at most %d lower-case letters, digits, "-" and ".", letters or digits at both ends`, maxNameBytes)
	case !nad.IsLabel(e.Namespace):
		return fieldError("namespace", e.Namespace, `is no name of a namespace: use at most %d lower-case letters, digits and "-", letters or digits at both ends`, maxNamespaceBytes)
	case e.Interface != "":
		return checkInterfaceName(e.Interface)
	}
	return nil
}

func (e *Element) canonicalizeAddresses() error {
	if e.MAC != "" {
		mac, err := net.ParseMAC(e.MAC)
		if err != nil {
			return fieldError("mac", e.MAC, "is no hardware address: write 6 bytes (20 for InfiniBand) in hex, like 02:00:00:00:00:01")
		}
		e.MAC = mac.String()
	}
	if e.InfinibandGUID != "" {
		guid, err := net.ParseMAC(e.InfinibandGUID)
		if err != nil || len(guid) != 8 {
			return fieldError("infiniband-guid", e.InfinibandGUID, "is no GUID: write 8 bytes in hex, like 02:00:00:00:00:00:00:01")
		}
		e.InfinibandGUID = guid.String()
	}
	if len(e.IPs) > 0 && e.IPAMClaimReference != "" {
		return fieldError("ipam-claim-reference", e.IPAMClaimReference, `is given together with "ips": remove one of them, the claim decides the addresses`)
	}
	for i, text := range e.IPs {
		ip, err := canonicalIP(text)
		if err != nil {
			return err
		}
		e.IPs[i] = ip
	}
	if len(e.IPs) == 0 {
		e.IPs = nil
	}
	return nil
}

// canonicalIP returns an address, or an address with prefix length, in canonical text.
func canonicalIP(text string) (string, error) {
	if !strings.Contains(text, "/") {
		if addr, ok := parseAddr(text); ok {
			return addr.String(), nil
		}
		return "", fieldError("ips", text, "is no IP address: write one like 10.1.2.3, 10.1.2.3/24 or fd00::3/64")
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix.Addr().Is4In6() {
		return "", fieldError("ips", text, "is no IP address with prefix length: write one like 10.1.2.3/24 or fd00::3/64")
	}
	return prefix.String(), nil
}

// parseAddr refuses what has a second spelling or means something only on one host: IPv4 within IPv6, and zones.
func parseAddr(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(text)
	return addr, err == nil && !addr.Is4In6() && addr.Zone() == ""
}

// gateways reads the default-route list.
func gateways(texts []string) ([]netip.Addr, error) {
	if texts == nil {
		return nil, nil
	}
	list := make([]netip.Addr, 0, len(texts))
	for _, text := range texts {
		gw, ok := parseAddr(text)
		if !ok || gw.IsUnspecified() || gw.IsMulticast() || gw.IsLoopback() {
			return nil, fieldError("default-route", text, "is no address of a gateway: write an IP address without prefix length, like 10.1.2.1 or fd00::1")
		}
		if slices.ContainsFunc(list, func(other netip.Addr) bool { return other.Is4() == gw.Is4() }) {
			return nil, fieldError("default-route", text, "is a second %s gateway, and ECMP is not supported: keep one of a family", Family(gw))
		}
		list = append(list, gw)
	}
	return list, nil
}

// Family is how messages call the family of an address: "IPv4" or "IPv6".
func Family(addr netip.Addr) string {
	if addr.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// RouteFamilies are the families whose default route the element claims; the empty list claims both, none claims nothing.
func (e Element) RouteFamilies() []string {
	if e.DefaultRoute != nil && len(e.DefaultRoute) == 0 {
		return []string{"IPv4", "IPv6"}
	}
	var families []string
	for _, gw := range e.DefaultRoute {
		families = append(families, Family(gw))
	}
	return families
}

func (e *Element) canonicalizeBandwidth() error {
	if e.Bandwidth == nil {
		return nil
	}
	b := *e.Bandwidth
	if b == (Bandwidth{}) {
		e.Bandwidth = nil // no limit in either direction: nothing to ask of a plugin
		return nil
	}
	for _, d := range []struct {
		direction   string
		rate, burst int64
	}{{"ingress", b.IngressRate, b.IngressBurst}, {"egress", b.EgressRate, b.EgressBurst}} {
		switch {
		case d.rate < 0 || d.burst < 0:
			return fmt.Errorf("bandwidth has %sRate %d and %sBurst %d: give bits per second and bits, 0 or more", d.direction, d.rate, d.direction, d.burst)
		case (d.rate == 0) != (d.burst == 0):
			return fmt.Errorf("bandwidth has %sRate %d and %sBurst %d: give both or neither", d.direction, d.rate, d.direction, d.burst)
		case d.burst > maxBurstBits:
			return fmt.Errorf("bandwidth has %sBurst %d: give at most %d bits (4 GiB)", d.direction, d.burst, int64(maxBurstBits))
		}
	}
	return nil
}

func (e *Element) canonicalizePortMappings() error {
	for i := range e.PortMappings {
		p := &e.PortMappings[i]
		switch {
		case p.HostPort < 1 || p.HostPort > math.MaxUint16:
			return fmt.Errorf("portMappings[%d] has hostPort %d: give a port from 1 to 65535", i, p.HostPort)
		case p.ContainerPort < 1 || p.ContainerPort > math.MaxUint16:
			return fmt.Errorf("portMappings[%d] has containerPort %d: give a port from 1 to 65535", i, p.ContainerPort)
		}
		switch protocol := strings.ToLower(p.Protocol); protocol {
		case "":
			p.Protocol = "tcp"
		case "tcp", "udp", "sctp":
			p.Protocol = protocol
		default:
			return fieldError(fmt.Sprintf("portMappings[%d].protocol", i), p.Protocol, "is unknown: write tcp, udp or sctp")
		}
		if p.HostIP == "" {
			continue
		}
		ip, ok := parseAddr(p.HostIP)
		if !ok {
			return fieldError(fmt.Sprintf("portMappings[%d].hostIP", i), p.HostIP, "is no IP address: write one like 192.0.2.1, or leave it out")
		}
		p.HostIP = ip.String()
	}
	if len(e.PortMappings) == 0 {
		e.PortMappings = nil
	}
	return nil
}

func (e *Element) canonicalizeCNIArgs() error {
	for key, value := range e.CNIArgs {
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err != nil {
			return fieldError("cni-args", key, "has a value that is no JSON: %w", err)
		}
		e.CNIArgs[key] = compact.Bytes()
	}
	if len(e.CNIArgs) == 0 {
		e.CNIArgs = nil
	}
	return nil
}

func (e *Element) checkDevice() error {
	unfit := func(r rune) bool { return r == '/' || unicode.IsSpace(r) || !unicode.IsPrint(r) }
	switch id := e.DeviceID; {
	case len(id) > maxDeviceIDBytes:
		return fieldError("deviceID", id, "has %d bytes: give at most %d", len(id), maxDeviceIDBytes)
	case id == "." || id == ".." || strings.ContainsFunc(id, unfit):
		return fieldError("deviceID", id, `is no device ID: write one like 0000:03:02.1, without "/" and white space`)
	case e.IPAMClaimReference != "" && !nad.IsSubdomain(e.IPAMClaimReference):
		return fieldError("ipam-claim-reference", e.IPAMClaimReference, `is no name of an IPAMClaim: use at most %d lower-case letters, digits, "-" and ".", letters or digits at both ends`, maxNameBytes)
	}
	return nil
}

// fieldError words what is wrong with the value of a field, and how to fix it.
func fieldError(field, value, format string, args ...any) error {
	return fmt.Errorf("%s %s "+format, append([]any{field, quoted(value)}, args...)...)
}

// quoted returns the start of a value, printable.
func quoted(value string) string {
	if len(value) <= maxQuotedBytes {
		return fmt.Sprintf("%q", value)
	}
	return fmt.Sprintf("%q...", strings.ToValidUTF8(value[:maxQuotedBytes], ""))
}
