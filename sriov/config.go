// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/sysfs"
)

// Type is the plugin type.
const Type = "sriov"

// ErrInvalid marks a network configuration that cannot be served; its text names the key, the value and the fix.
var ErrInvalid = errors.New("invalid sriov configuration")

// Config is the network configuration of a VF. Where it leaves a setting out, the VF keeps what it has.
type Config struct {
	CNIVersion string
	// Network is the name of the network.
	Network string
	// Device is the VF; empty only where [ParseConfig] was told that none need be known.
	Device sysfs.Address
	// IPAM is the type of the IPAM plugin, "" for none.
	IPAM string
	// VLAN is the tag of the VF's frames.
	VLAN *netdev.VLAN
	// MAC is lower-case, or "".
	MAC string
	// MinTxMbps and MaxTxMbps are in Mbit/s, 0 for no bound.
	MinTxMbps, MaxTxMbps *int
	SpoofCheck, Trust    *bool
	// LinkState is auto, enable, disable or "".
	LinkState string
	// MTU is that of the interface in the pod, in bytes; 0 for that of the VF.
	MTU                   int
	Promisc, AllMulticast *bool
	// DeviceInfoFile is where the pod's device is described (Device Information Specification 1.1.0), "" for nowhere.
	DeviceInfoFile string
	// DNS goes into the result.
	DNS types.DNS
	// PrevResult is the result of an ADD, for CHECK.
	PrevResult *types100.Result
}

// rawConfig is the configuration as it is written. Its keys are those of the NADs that exist; docs/configuration.md is made from
// their comments.
type rawConfig struct {
	// Those of every plugin: cniVersion, name, type, capabilities, ipam (any IPAM plugin), dns, prevResult.
	types.PluginConf
	// PCI address of the VF; Plexus fills it in with what the pod was given of the network's resourceName.
	DeviceID string `json:"deviceID"`
	// Tag of the VF's frames, 1 to 4094; 0 for none.
	VLAN *int `json:"vlan"`
	// Priority of the tag, 0 to 7; with vlan.
	VLANQoS *int `json:"vlanQoS"`
	// "802.1q", the default, or "802.1ad"; with vlan.
	VLANProto *string `json:"vlanProto"`
	// The VF's MAC. A pod's request (capability mac), and MAC of CNI_ARGS, go before it.
	MAC string `json:"mac"`
	// "on" or "off": whether the NIC drops frames with another source MAC than the VF's.
	SpoofCheck string `json:"spoofchk"`
	// "on" or "off": whether the VF may be promiscuous, and change its MAC.
	Trust string `json:"trust"`
	// "auto", "enable" or "disable": whether the VF's link follows the PF's.
	LinkState string `json:"link_state"`
	// Mbit/s that the VF is guaranteed, 0 for none.
	MinTxRate *int `json:"min_tx_rate"`
	// Mbit/s that the VF may send, 0 for no bound.
	MaxTxRate *int `json:"max_tx_rate"`
	// MTU of the pod's interface in bytes, [minMTU] up to the PF's; 0 for that of the VF.
	MTU *int `json:"mtu"`
	// Whether the interface is set promiscuous.
	Promisc *bool `json:"promisc"`
	// Whether the interface receives all multicast.
	AllMulticast *bool `json:"allMulticast"`
	// What the runtime, or Plexus in its place, adds for a pod.
	Runtime struct {
		// The MAC that the pod asked for.
		MAC string `json:"mac"`
		// The device of this call; goes before the deviceID of the configuration.
		DeviceID string `json:"deviceID"`
		// Where the device is to be described (Device Information Specification).
		DeviceInfoFile string `json:"CNIDeviceInfoFile"`
		// Refused: InfiniBand needs the plugin ib-sriov.
		InfiniBandGUID string `json:"infinibandGUID"`
	} `json:"runtimeConfig"`
}

// Keys are those of a network configuration that the plugin reads, but for the ones of every plugin (CNI 1.1.0 §1).
func Keys() []string {
	var keys []string
	for field := range reflect.TypeFor[rawConfig]().Fields() {
		if key := field.Tag.Get("json"); key != "" && key != "runtimeConfig" {
			keys = append(keys, key)
		}
	}
	return keys
}

// ParseConfig reads a network configuration and the CNI_ARGS of the call, of which MAC counts. It checks all that can be checked
// without looking at the device, and its error names all that is wrong: see [Mistakes]. A configuration without device is fine only where
// anyDevice is set: for STATUS and GC. Errors match [ErrInvalid].
func ParseConfig(conf []byte, args string, anyDevice bool) (*Config, error) {
	c, mistakes := parse(conf, args)
	if len(mistakes) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrInvalid, oneLine(mistakes))
	}
	if c.Device == "" && !anyDevice {
		return nil, fmt.Errorf("%w: no \"deviceID\": the NetworkAttachmentDefinition needs the annotation k8s.v1.cni.cncf.io/resourceName, and the pod has to request one of that resource", ErrInvalid)
	}
	return c, nil
}

// Mistakes are what [ParseConfig] refuses of a network configuration, one for each: the text of one names its key.
func Mistakes(conf []byte, args string) []error {
	_, mistakes := parse(conf, args)
	return mistakes
}

func parse(conf []byte, args string) (*Config, []error) {
	raw, errs := decode(conf)
	c := &Config{
		CNIVersion: cmp.Or(raw.CNIVersion, "0.1.0"), Network: raw.Name, IPAM: raw.IPAM.Type, DNS: raw.DNS,
		Promisc: raw.Promisc, AllMulticast: raw.AllMulticast, DeviceInfoFile: raw.Runtime.DeviceInfoFile,
	}
	if raw.Runtime.InfiniBandGUID != "" {
		errs = append(errs, errors.New(`"runtimeConfig.infinibandGUID": InfiniBand VFs are not supported yet: use the ib-sriov plugin for this network`))
	}
	for _, parse := range []func(*rawConfig) error{
		c.parseDevice, c.parseVLAN, c.parseRates, c.parseSwitches, c.parseMTU,
		func(raw *rawConfig) error { return c.parseMAC(raw, args) }, c.parsePrevResult,
	} {
		err := parse(raw)
		if several, ok := err.(interface{ Unwrap() []error }); ok {
			errs = append(errs, several.Unwrap()...)
		} else if err != nil {
			errs = append(errs, err)
		}
	}
	return c, errs
}

// decode reads the configuration once, whatever is wrong with it: a key whose value has the wrong type is named, and counts as left out.
func decode(conf []byte) (*rawConfig, []error) {
	var errs []error
	for {
		raw := &rawConfig{}
		err := json.Unmarshal(conf, raw)
		wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
		if !ok {
			if err != nil {
				errs = append(errs, err)
			}
			return raw, errs
		}
		field := strings.TrimPrefix(wrong.Field, "PluginConf.") // as its key is written
		errs = append(errs, fmt.Errorf("%q is a JSON %s, it has to be of type %s", field, wrong.Value, wrong.Type))
		// The decoder tells of the first one only.
		var keys map[string]json.RawMessage
		key, _, _ := strings.Cut(field, ".")
		if json.Unmarshal(conf, &keys) != nil || len(errs) > maxKeys {
			return raw, errs
		}
		before := len(keys)
		maps.DeleteFunc(keys, func(k string, _ json.RawMessage) bool { return strings.EqualFold(k, key) })
		if len(keys) == before {
			return raw, errs
		}
		if conf, err = json.Marshal(keys); err != nil {
			return raw, append(errs, err)
		}
	}
}

// maxKeys bounds how many values of the wrong type are told of.
const maxKeys = 16

// parseDevice takes the device of this call before the one that the configuration was written with.
func (c *Config) parseDevice(raw *rawConfig) error {
	id := cmp.Or(raw.Runtime.DeviceID, raw.DeviceID)
	if id == "" {
		return nil
	}
	address, err := sysfs.ParseAddress(id)
	if err != nil {
		return fmt.Errorf("\"deviceID\": %w", err)
	}
	c.Device = address
	return nil
}

func (c *Config) parseVLAN(raw *rawConfig) error {
	if raw.VLAN == nil {
		if raw.VLANQoS != nil || raw.VLANProto != nil {
			return errors.New(`"vlanQoS" and "vlanProto" need "vlan": add it, or leave them out`)
		}
		return nil
	}
	vlan := &netdev.VLAN{ID: *raw.VLAN, QoS: orElse(raw.VLANQoS, 0), Proto: strings.ToLower(orElse(raw.VLANProto, netdev.VLANProto8021Q))}
	var errs []error
	if vlan.ID < 0 || vlan.ID > 4094 {
		errs = append(errs, fmt.Errorf("\"vlan\" is %d, it has to be 1 to 4094, or 0 for no tag", vlan.ID))
	}
	if vlan.QoS < 0 || vlan.QoS > 7 {
		errs = append(errs, fmt.Errorf("\"vlanQoS\" is %d, it has to be 0 to 7", vlan.QoS))
	}
	if vlan.Proto != netdev.VLANProto8021Q && vlan.Proto != netdev.VLANProto8021AD {
		errs = append(errs, fmt.Errorf("\"vlanProto\" is %q, it has to be %q or %q", *raw.VLANProto, netdev.VLANProto8021Q, netdev.VLANProto8021AD))
	}
	if vlan.ID == 0 && errs == nil && (vlan.QoS != 0 || vlan.Proto != netdev.VLANProto8021Q) {
		errs = append(errs, errors.New(`"vlan" 0 is no tag, so it can have neither "vlanQoS" nor "vlanProto" 802.1ad: leave them out, or name a VLAN`))
	}
	c.VLAN = vlan
	return errors.Join(errs...)
}

func (c *Config) parseRates(raw *rawConfig) error {
	const most = 10_000_000 // Mbit/s; no NIC has 10 Tbit/s, and the kernel takes 32 bits
	var errs []error
	for _, r := range []struct {
		key  string
		rate *int
	}{{"min_tx_rate", raw.MinTxRate}, {"max_tx_rate", raw.MaxTxRate}} {
		if r.rate != nil && (*r.rate < 0 || *r.rate > most) {
			errs = append(errs, fmt.Errorf("%q is %d, it has to be Mbit/s from 1 to %d, or 0 for no bound", r.key, *r.rate, most))
		}
	}
	if raw.MinTxRate != nil && raw.MaxTxRate != nil && *raw.MaxTxRate > 0 && *raw.MinTxRate > *raw.MaxTxRate {
		errs = append(errs, fmt.Errorf("\"min_tx_rate\" %d is above \"max_tx_rate\" %d: lower the one or raise the other", *raw.MinTxRate, *raw.MaxTxRate))
	}
	c.MinTxMbps, c.MaxTxMbps = raw.MinTxRate, raw.MaxTxRate
	return errors.Join(errs...)
}

func (c *Config) parseSwitches(raw *rawConfig) error {
	var spoofErr, trustErr, stateErr error
	c.SpoofCheck, spoofErr = parseOnOff("spoofchk", raw.SpoofCheck)
	c.Trust, trustErr = parseOnOff("trust", raw.Trust)
	switch raw.LinkState {
	case "", netdev.LinkStateAuto, netdev.LinkStateEnable, netdev.LinkStateDisable:
		c.LinkState = raw.LinkState
	default:
		stateErr = fmt.Errorf("\"link_state\" is %q, it has to be auto, enable or disable", raw.LinkState)
	}
	return errors.Join(spoofErr, trustErr, stateErr)
}

func parseOnOff(key, value string) (*bool, error) {
	switch value {
	case "":
		return nil, nil // to be left alone is an answer
	case "on":
		return new(true), nil
	case "off":
		return new(false), nil
	}
	return nil, fmt.Errorf("%q is %q, it has to be \"on\" or \"off\"", key, value)
}

// minMTU is what IPv4 needs (RFC 791).
const minMTU = 68

func (c *Config) parseMTU(raw *rawConfig) error {
	if raw.MTU == nil || *raw.MTU == 0 {
		return nil
	}
	if *raw.MTU < minMTU {
		return fmt.Errorf("\"mtu\" is %d, it has to be at least %d, and at most that of the PF", *raw.MTU, minMTU)
	}
	c.MTU = *raw.MTU
	return nil
}

// parseMAC takes the pod's request (runtimeConfig, then CNI_ARGS) before the network's.
func (c *Config) parseMAC(raw *rawConfig, args string) error {
	var env struct {
		types.CommonArgs
		MAC types.UnmarshallableString
	}
	if args != "" {
		if err := types.LoadArgs(args, &env); err != nil {
			return fmt.Errorf("CNI_ARGS: %w", err)
		}
	}
	for _, s := range []struct{ key, value string }{
		{`"runtimeConfig.mac"`, raw.Runtime.MAC}, {"MAC of CNI_ARGS", string(env.MAC)}, {`"mac"`, raw.MAC},
	} {
		if s.value == "" {
			continue
		}
		mac, err := net.ParseMAC(s.value)
		if err != nil || len(mac) != 6 {
			return fmt.Errorf("%s is %q, it has to be six bytes like 02:00:5e:10:00:01", s.key, s.value)
		}
		if mac[0]&1 != 0 || bytes.Equal(mac, make([]byte, 6)) {
			return fmt.Errorf("%s is %q, it has to be the address of one station: not a multicast one, not zero", s.key, s.value)
		}
		c.MAC = mac.String()
		return nil
	}
	return nil
}

func (c *Config) parsePrevResult(raw *rawConfig) error {
	for _, key := range []string{"interfaces", "ips", "routes"} {
		// The CNI library's conversions follow the pointers that these would be.
		if list, ok := raw.RawPrevResult[key].([]any); ok && slices.Contains(list, nil) {
			return errors.New(`"prevResult" has null in a list: hand over the result of the ADD`)
		}
	}
	if err := version.ParsePrevResult(&raw.PluginConf); err != nil {
		return fmt.Errorf("\"prevResult\": %w", err)
	}
	if raw.PrevResult == nil {
		return nil
	}
	result, err := types100.NewResultFromResult(raw.PrevResult)
	if err != nil {
		return fmt.Errorf("\"prevResult\": %w", err)
	}
	c.PrevResult = result
	return nil
}

// want is what a VF shall be: as it is now, but for what the configuration says.
func (c *Config) want(now netdev.VF) netdev.VF {
	if c.VLAN != nil {
		now.VLAN = *c.VLAN
	}
	now.MAC = cmp.Or(c.MAC, now.MAC)
	now.MinTxMbps, now.MaxTxMbps = orElse(c.MinTxMbps, now.MinTxMbps), orElse(c.MaxTxMbps, now.MaxTxMbps)
	now.SpoofCheck, now.Trust = orElse(c.SpoofCheck, now.SpoofCheck), orElse(c.Trust, now.Trust)
	now.LinkState = cmp.Or(c.LinkState, now.LinkState)
	return now
}

func orElse[T any](set *T, unset T) T {
	if set != nil {
		return *set
	}
	return unset
}

// asks reports whether the configuration says what a setting of the PF shall be.
func (c *Config) asks(s netdev.VFSetting) bool {
	switch s {
	case netdev.VFTrust:
		return c.Trust != nil
	case netdev.VFVLAN:
		return c.VLAN != nil
	case netdev.VFMAC:
		return c.MAC != ""
	case netdev.VFRate:
		return c.MinTxMbps != nil || c.MaxTxMbps != nil
	case netdev.VFSpoofCheck:
		return c.SpoofCheck != nil
	case netdev.VFLinkState:
		return c.LinkState != ""
	}
	return false
}
