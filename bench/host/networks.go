// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/plexus-cni/plexus/bench/fakeapi"
)

// MaxNetworks is how many networks there are for pods to select.
const MaxNetworks = 8

// Kind says what the delegates of a workload do.
type Kind string

const (
	// Real delegates are the reference plugins: bridge for the default network, then bridge and macvlan by turns, with host-local.
	Real Kind = "real"
	// Noop delegates answer and do nothing, as a shell script, so that what is left is the contender's own time.
	Noop Kind = "noop"
)

// Workload is a kind of pod: what its networks are, and how many it selects beside the default network.
type Workload struct {
	Kind     Kind `json:"delegates"`
	Networks int  `json:"networks"`
}

// Annotation is the networks annotation of a pod.
func (w Workload) Annotation() string {
	names := make([]string, 0, w.Networks)
	for i := range w.Networks {
		names = append(names, w.Kind.network(i+1))
	}
	return strings.Join(names, ",")
}

// network is the name of network i; 0 is the default one.
func (k Kind) network(i int) string { return fmt.Sprintf("%s-%d", k, i) }

// object is a JSON object.
type object = map[string]any

// delegate is the CNI configuration of network i of a kind. Address leases are kept in the folder leases.
func (k Kind) delegate(i int, leases string) object {
	conf := object{"cniVersion": "1.0.0", "name": k.network(i)}
	if k == Noop {
		conf["type"] = "noop"
		return conf
	}
	conf["ipam"] = object{
		"type": "host-local", "dataDir": leases,
		"ranges": []any{[]any{object{"subnet": fmt.Sprintf("10.%d.0.0/16", 100+i)}}},
	}
	if i > 0 && i%2 == 0 {
		conf["type"], conf["master"], conf["mode"] = "macvlan", parent, "bridge"
		return conf
	}
	conf["type"], conf["bridge"] = "bridge", fmt.Sprintf("br%d", i)
	if i == 0 {
		conf["isDefaultGateway"] = true
	}
	return conf
}

// definitions are the NetworkAttachmentDefinitions that pods select, and as many more as fill up to total.
func definitions(leases string, total int) []fakeapi.Definition {
	var all []fakeapi.Definition
	for _, k := range []Kind{Real, Noop} {
		for i := range MaxNetworks {
			all = append(all, fakeapi.Definition{Name: k.network(i + 1), Config: string(encode(k.delegate(i+1, leases)))})
		}
	}
	for i := len(all); i < total; i++ {
		conf := Real.delegate(1+i%MaxNetworks, leases)
		conf["name"] = fmt.Sprintf("other-%d", i)
		all = append(all, fakeapi.Definition{Name: fmt.Sprintf("other-%d", i), Config: string(encode(conf))})
	}
	return all
}

// noopPlugin is the program of the no-op network.
const noopPlugin = `#!/bin/sh
case $CNI_COMMAND in
ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],"ips":[{"interface":0,"address":"10.99.0.2/24"}]}' ;;
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
esac
`

// encode encodes what is made of strings and numbers alone.
func encode(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return data
}
