// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package sriov

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// write is a configuration as a person would write it.
func (c *Config) write() ([]byte, error) {
	onOff := func(b *bool) string {
		switch {
		case b == nil:
			return ""
		case *b:
			return "on"
		}
		return "off"
	}
	keys := map[string]any{
		"cniVersion": c.CNIVersion, "name": c.Network, "deviceID": c.Device, "ipam": map[string]any{"type": c.IPAM}, "mac": c.MAC, "mtu": c.MTU,
		"min_tx_rate": c.MinTxMbps, "max_tx_rate": c.MaxTxMbps, "spoofchk": onOff(c.SpoofCheck), "trust": onOff(c.Trust), "link_state": c.LinkState,
		"promisc": c.Promisc, "allMulticast": c.AllMulticast, "runtimeConfig": map[string]any{"CNIDeviceInfoFile": c.DeviceInfoFile},
	}
	if c.VLAN != nil {
		keys["vlan"], keys["vlanQoS"], keys["vlanProto"] = c.VLAN.ID, c.VLAN.QoS, c.VLAN.Proto
	}
	return json.Marshal(keys)
}

// FuzzParseConfig accepts only what it accepts again, with the same meaning, once it is written in the plain way.
func FuzzParseConfig(f *testing.F) {
	for _, conf := range []string{
		`{"cniVersion":"1.1.0","name":"fast","type":"sriov","deviceID":"0000:03:02.1"}`,
		`{"deviceID":"10000:03:1F.7","vlan":100,"vlanQoS":3,"vlanProto":"802.1AD","mac":"02-00-00-00-00-AA","min_tx_rate":1,"spoofchk":"on","trust":"off","link_state":"auto"}`,
		`{"runtimeConfig":{"deviceID":"0000:03:02.1","mac":"0200.0000.00aa","CNIDeviceInfoFile":"/x"},"mtu":9000,"promisc":true,"allMulticast":false,"ipam":{"type":"dhcp"}}`,
		`{"deviceID":"0000:03:02.1","cniVersion":"0.3.1","prevResult":{"cniVersion":"0.3.1","interfaces":[null],"ips":[null],"routes":[null]}}`,
		`{"deviceID":"0000:03:02.1","cniVersion":"0.2.0","prevResult":{"ip4":{"ip":"192.0.2.5/24","routes":[null]}}}`,
		`{"deviceID":"0000:03:02.1","cniVersion":"1.0.0","prevResult":{"ips":[{}],"interfaces":[{}],"routes":[{}]}}`,
		`{"vlan":0,"max_tx_rate":0}`, `{"vlan":1e3}`, `null`, `[]`, ``,
	} {
		f.Add([]byte(conf), "IgnoreUnknown=1;MAC=02:00:00:00:00:01")
		f.Add([]byte(conf), "")
	}
	f.Fuzz(func(t *testing.T, conf []byte, args string) {
		c, err := ParseConfig(conf, args, true)
		if err != nil {
			return
		}
		plain, err := c.write()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(plain, "", true)
		if err != nil {
			t.Fatalf("%s is accepted, and as %s refused: %v", conf, plain, err)
		}
		if diff := cmp.Diff(c, again, cmpopts.IgnoreFields(Config{}, "DNS", "PrevResult")); diff != "" {
			t.Errorf("%s means something else as %s:\n%s", conf, plain, diff)
		}
	})
}

// FuzzParseLegacy gives only records that can be kept and read again, and that no kernel call is surprised by.
func FuzzParseLegacy(f *testing.F) {
	f.Add([]byte(`{"name":"fast","deviceID":"0000:03:02.3","OrigVfState":{"HostIFName":"eth4v3","SpoofChk":true,"AdminMAC":"00:00:00:00:00:00","EffectiveMAC":"02:00:00:00:00:0d","Vlan":5,"VlanQoS":1,"VlanProto":34984,"MinTxRate":1,"MaxTxRate":2,"LinkState":2,"MTU":1500}}`))
	f.Add([]byte(`{"deviceID":"0000:03:02.3","OrigVfState":{"HostIFName":"../x","LinkState":4294967295,"MTU":-1}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseLegacy(data)
		if err != nil {
			return
		}
		r.Owner.ContainerID, r.Owner.IfName = "c", "net1"
		if err = r.validate(r.Device); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if v := r.VF.VLAN; v.ID < 0 || v.ID > 4095 || v.QoS < 0 || v.QoS > 7 || r.VF.MinTxMbps < 0 || r.VF.MaxTxMbps < 0 || r.Link.MTU < 0 || len(r.Link.Name) > 15 {
			t.Errorf("%s: %+v", data, r)
		}
		saved, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again Record
		if err := json.Unmarshal(saved, &again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*r, again); diff != "" {
			t.Errorf("%s: saved and read again:\n%s", data, diff)
		}
	})
}
