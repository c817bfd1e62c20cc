// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bench measures what Plexus adds to the delegates that it runs: each benchmark has the same delegates called directly, as a
// container runtime does, beside the same through the plugin. The difference is Plexus' own share.
//
//	go test -run '^$' -bench . ./bench
package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/plexus-cni/plexus/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.InUserNS(m)) }

// node is a host with a plugin that does nothing but start, read and answer, so that what is measured is not a delegate's work.
type node struct {
	bin, dir, netns string
}

func newNode(b *testing.B) node {
	b.Helper()
	testenv.RequireRoot(b)
	return node{bin: testenv.Build(b, "./cmd/plexus", "./conformance/recorder"), dir: b.TempDir(), netns: testenv.NetNS(b)}
}

// delegate is the configuration of network i.
func (n node) delegate(i int) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net-%d","type":"recorder","record":"/dev/null","ips":[{"address":"10.%d.0.2/24"}]}`, i, i+1)
}

// plexus is a configuration list with a pod that selects more networks, by manifests.
func (n node) plexus(b *testing.B, more int) *libcni.NetworkConfigList {
	b.Helper()
	var names []string
	manifests := ""
	for i := 1; i <= more; i++ {
		names = append(names, fmt.Sprintf("net-%d", i))
		manifests += fmt.Sprintf("---\nkind: NetworkAttachmentDefinition\nmetadata: {name: net-%d}\nspec:\n  config: '%s'\n", i, n.delegate(i))
	}
	manifests += fmt.Sprintf("---\nkind: Pod\nmetadata: {name: web, annotations: {k8s.v1.cni.cncf.io/networks: %q}}\n", strings.Join(names, ","))
	folder := filepath.Join(n.dir, fmt.Sprintf("manifests-%d", more))
	if err := os.MkdirAll(folder, 0o750); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "all.yaml"), []byte(manifests), 0o600); err != nil {
		b.Fatal(err)
	}
	return parse(b, fmt.Sprintf(`{"cniVersion":"1.0.0","name":"plexus","plugins":[{"type":"plexus","binDir":%q,"cniDir":%q,"legacyCNIDir":%q,"manifestDir":%q,"delegates":[%s]}]}`,
		n.bin, filepath.Join(n.dir, "state"), filepath.Join(n.dir, "legacy"), folder, n.delegate(0)))
}

// direct are the configuration lists of the same networks.
func (n node) direct(b *testing.B, more int) []*libcni.NetworkConfigList {
	b.Helper()
	var lists []*libcni.NetworkConfigList
	for i := range more + 1 {
		lists = append(lists, parse(b, fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net-%d","plugins":[%s]}`, i, n.delegate(i))))
	}
	return lists
}

func parse(b *testing.B, config string) *libcni.NetworkConfigList {
	b.Helper()
	list, err := libcni.NetworkConfFromBytes([]byte(config))
	if err != nil {
		b.Fatal(err)
	}
	return list
}

// contenders are the ways to attach a pod to its default network and more ones: as many lists as the runtime has to call.
func contenders(b *testing.B, n node, more int) map[string][]*libcni.NetworkConfigList {
	b.Helper()
	return map[string][]*libcni.NetworkConfigList{
		"direct": n.direct(b, more),
		"plexus": {n.plexus(b, more)},
	}
}

func BenchmarkADDAndDEL(b *testing.B) {
	n := newNode(b)
	runtime := libcni.NewCNIConfigWithCacheDir([]string{n.bin}, filepath.Join(n.dir, "runtime"), nil)
	for _, more := range []int{0, 1, 2, 4, 8} {
		for name, lists := range contenders(b, n, more) {
			rt := func(i int) *libcni.RuntimeConf {
				return &libcni.RuntimeConf{
					ContainerID: "c1", NetNS: n.netns, IfName: fmt.Sprintf("eth%d", i),
					Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "web"}},
				}
			}
			add := func(b *testing.B) {
				b.Helper()
				for i, l := range lists {
					if _, err := runtime.AddNetworkList(b.Context(), l, rt(i)); err != nil {
						b.Fatal(err)
					}
				}
			}
			del := func(b *testing.B) {
				b.Helper()
				for i, l := range lists {
					if err := runtime.DelNetworkList(b.Context(), l, rt(i)); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.Run(fmt.Sprintf("ADD/more=%d/%s", more, name), func(b *testing.B) {
				for b.Loop() {
					add(b)
					b.StopTimer()
					del(b)
					b.StartTimer()
				}
			})
			b.Run(fmt.Sprintf("DEL/more=%d/%s", more, name), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					add(b)
					b.StartTimer()
					del(b)
				}
			})
		}
	}
}
