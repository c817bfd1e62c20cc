// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/testenv"
)

// TestKeysAreThoseOfTheReferencePlugins reads the configuration of each plugin from its source.
func TestKeysAreThoseOfTheReferencePlugins(t *testing.T) {
	t.Parallel()
	structs := map[string]string{
		"main/bridge": "NetConf", "main/macvlan": "NetConf", "main/ipvlan": "NetConf", "main/vlan": "NetConf", "main/host-device": "NetConf", "main/ptp": "NetConf", "main/tap": "NetConf",
		"main/dummy": "", "main/loopback": "", // they have no keys of their own
		"meta/bandwidth": "PluginConf", "meta/tuning": "TuningConf", "meta/firewall": "FirewallNetConf", "meta/portmap": "PortMapConf", "meta/sbr": "PluginConf", "meta/vrf": "VRFNetConf",
		"ipam/host-local/backend/allocator": "IPAMConfig", "ipam/static": "IPAMConfig", "ipam/dhcp": "IPAMConfig",
	}
	tables := knownPlugins()
	maps.Copy(tables, knownIPAM())
	checked := 0
	for path, name := range structs {
		typ := strings.Split(path, "/")[1]
		want := jsonKeys(t, path, name)
		got := slices.Sorted(maps.Keys(tables[typ].keys))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("keys of %s (-source +table):\n%s", typ, diff)
		}
		checked++
	}
	if own := 1; checked+own != len(tables) { // sriov is Plexus' own
		t.Errorf("%d plugins compared, %d known", checked, len(tables))
	}
}

// jsonKeys are the keys of a struct of a plugin, but for those that each plugin has.
func jsonKeys(t *testing.T, path, name string) []string {
	t.Helper()
	pkg, err := build.Import("github.com/containernetworking/plugins/plugins/"+path, ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	files, err := parser.ParseDir(token.NewFileSet(), pkg.Dir, func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0) //nolint:staticcheck // SA1019: build tags make no difference here.
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]*ast.StructType{}
	for _, p := range files {
		ast.Inspect(p, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					types[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	if name != "" && types[name] == nil {
		t.Fatalf("no struct %s in %s", name, pkg.Dir)
	}
	var keys []string
	var collect func(s *ast.StructType)
	collect = func(s *ast.StructType) {
		for _, f := range s.Fields.List {
			if f.Tag == nil {
				typ := f.Type
				if star, ok := typ.(*ast.StarExpr); ok {
					typ = star.X
				}
				if embedded, ok := typ.(*ast.Ident); ok && len(f.Names) == 0 && types[embedded.Name] != nil {
					collect(types[embedded.Name])
				}
				continue
			}
			tag, err := strconv.Unquote(f.Tag.Value)
			if err != nil {
				t.Fatal(err)
			}
			key, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
			if !slices.Contains([]string{"", "-", "args", "runtimeConfig", "prevResult", "type", "ipam"}, key) {
				keys = append(keys, key)
			}
		}
	}
	if name != "" {
		collect(types[name])
	}
	slices.Sort(keys)
	return keys
}

// TestRefusalsAreThoseOfTheIPAMPlugins runs host-local and static. What they refuse has an error here, and what has none they accept.
func TestRefusalsAreThoseOfTheIPAMPlugins(t *testing.T) {
	t.Parallel()
	dir := testenv.Plugins(t)
	for _, ipam := range []string{
		`"type":"host-local","subnet":"10.0.0.0/24"`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"fd00::/8","gw":"fd00::1","mtu":1400}]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/30","rangeStart":"10.0.0.2","rangeEnd":"10.0.0.2"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.98"},{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.99"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.99"},{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.99"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24"}]],"gateway":"10.0.0.1"`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24"}]],"gateway":"x"`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24","gateway":"10.0.0"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24","gateway":"10.0.1.1"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.255"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.1.9"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.0.0.128/25"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/31"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.1/24"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"::ffff:10.0.0.0/120"}]]`,
		`"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":5}]]`,
		`"type":"host-local","ranges":[[{}]]`,
		`"type":"host-local","ranges":[[]]`,
		`"type":"host-local","ranges":[{"subnet":"10.0.0.0/24"}]`,
		`"type":"host-local","ranges":{}`,
		`"type":"host-local"`,
		`"type":"host-local","subnet":"10.0.0.0/24","routes":[{"dst":"10.0.0.0"}]`,
		`"type":"host-local","subnet":"10.0.0.0/24","routes":[{"dst":"10.0.0.0/8","mtu":"1500"}]`,
		`"type":"host-local","subnet":"10.0.0.0/24","resolvConf":5`,
		`"type":"static","addresses":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"address":"fd00::5/64"}]`,
		`"type":"static","addresses":[{"address":"10.0.0.5"}]`,
		`"type":"static","addresses":[{"address":"10.0.0.5/24","gateway":"x"}]`,
		`"type":"static","addresses":["10.0.0.5/24"]`,
	} {
		t.Run(ipam, func(t *testing.T) {
			t.Parallel()
			config := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":"macvlan","ipam":{%s}}`, ipam)
			found, _ := Run([]File{{Name: "f", Data: []byte(manifestOf("net", "", config))}}, Options{})
			if !strings.Contains(ipam, "resolvConf") && strings.Contains(ipam, "host-local") {
				config = strings.Replace(config, `"ipam":{`, fmt.Sprintf(`"ipam":{"dataDir":%q,`, t.TempDir()), 1)
			}
			typ := "host-local"
			if strings.Contains(ipam, "static") {
				typ = "static"
			}
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, typ))
			cmd.Stdin = strings.NewReader(config)
			cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=c", "CNI_IFNAME=net1", "CNI_NETNS=/none", "CNI_PATH=" + dir}
			out, err := cmd.Output()
			if refused := err != nil; refused != found.Fails(finding.Error) {
				t.Errorf("findings %v; %s says: %v %s", found, typ, err, out)
			}
		})
	}
}
