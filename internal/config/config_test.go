// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const bridge = `{"type":"bridge","name":"cluster"}`

func TestParseFillsDefaults(t *testing.T) {
	t.Parallel()
	got, err := Parse([]byte(`{"cniVersion":"1.0.0","name":"n","type":"plexus","delegates":[` + bridge + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		CNIVersion: "1.0.0", Name: "n", Type: "plexus",
		Delegates:         got.Delegates,
		SystemNamespaces:  []string{"kube-system"},
		NetworksNamespace: "kube-system",
		ConfDir:           "/etc/cni/plexus/net.d",
		CNIDir:            "/var/lib/cni/plexus",
		LegacyCNIDir:      "/var/lib/cni/multus",
		BinDir:            "/opt/cni/bin",
		DelegateTimeout:   90 * time.Second,
		StatusGrace:       5 * time.Minute,

		MaxParallelDelegates: 64,
		UnsupportedRequests:  VerifyRequests, MaxNetworks: 32, DefaultNetworkAnnotation: true, PodNamespace: "default",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
	if string(got.Delegates[0]) != bridge {
		t.Errorf("delegate = %s, want it untouched: %s", got.Delegates[0], bridge)
	}
}

func TestParseReadsEveryKey(t *testing.T) {
	t.Parallel()
	got, err := Parse([]byte(`{
	  "cniVersion": "1.1.0", "name": "n", "type": "plexus",
	  "clusterNetwork": " /etc/cni/net.d/10-a.conflist ", "defaultNetworks": ["a"], "systemNamespaces": [],
	  "multusNamespace": "nets", "namespaceIsolation": true, "globalNamespaces": "a, b",
	  "confDir": "/c", "cniDir": "/s", "legacyCNIDir": "/l", "binDir": "/b",
	  "daemonSocketDir": "/run/p", "kubeconfig": "/k", "manifestDir": "/m", "kubeletRootDir": "/var/lib/k",
	  "readinessindicatorfile": "/r", "auxiliaryCNIChainName": "aux", "unsupportedRequests": "ignore",
	  "allowedPlugins": ["bridge"], "maxNetworksPerPod": 5, "defaultNetworkAnnotation": true, "defaultNetworkPortMappings": true, "podNamespace": "p",
	  "delegateTimeoutSeconds": 5, "statusGraceSeconds": 60, "maxParallelDelegates": 7, "retryDeleteOnError": true,
	  "logLevel": "verbose", "logToStderr": true, "logFile": "/l.log",
	  "logOptions": {"maxAge": 1, "maxSize": 2, "maxBackups": 3, "compress": true},
	  "runtimeConfig": {"mac": "02:00:00:00:00:01"}, "somebodyElses": {"key": 1}}`))
	if err != nil {
		t.Fatal(err)
	}
	global := "a, b"
	want := &Config{
		CNIVersion: "1.1.0", Name: "n", Type: "plexus",
		ClusterNetwork: "/etc/cni/net.d/10-a.conflist", DefaultNetworks: []string{"a"}, SystemNamespaces: []string{},
		NetworksNamespace: "nets", NamespaceIsolation: true, GlobalNamespaces: &global,
		ConfDir: "/c", CNIDir: "/s", LegacyCNIDir: "/l", BinDir: "/b",
		DaemonSocketDir: "/run/p", Kubeconfig: "/k", ManifestDir: "/m", KubeletRootDir: "/var/lib/k",
		ReadinessIndicatorFile: "/r", AuxiliaryCNIChainName: "aux", UnsupportedRequests: IgnoreRequests,
		AllowedPlugins: []string{"bridge"}, MaxNetworks: 5, DefaultNetworkAnnotation: true, DefaultNetworkPortMappings: true, PodNamespace: "p",
		DelegateTimeout: 5 * time.Second, StatusGrace: time.Minute, MaxParallelDelegates: 7,
		RuntimeConfig: got.RuntimeConfig,
		Log: Log{
			Level: slog.LevelInfo, ToStderr: true, File: "/l.log",
			MaxSizeMB: 2, MaxBackups: 3, MaxAgeDays: 1, Compress: true,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
	if got := string(got.RuntimeConfig["mac"]); got != `"02:00:00:00:00:01"` {
		t.Errorf("runtimeConfig.mac = %s", got)
	}
}

func TestR19ClusterNetworkWinsOverDelegates(t *testing.T) {
	t.Parallel()
	got, err := Parse([]byte(`{"clusterNetwork":"x","delegates":[` + bridge + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got.ClusterNetwork != "x" || got.Delegates != nil {
		t.Errorf("clusterNetwork %q with %d delegates, want the former alone", got.ClusterNetwork, len(got.Delegates))
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	with := func(more string) string { return `{"delegates":[` + bridge + `],` + more + `}` }
	tests := map[string]struct{ in, says string }{
		"R20 neither delegates nor clusterNetwork": {`{"name":"n"}`, "at least one delegate/clusterNetwork must be specified"},
		"truncated JSON":                     {`{"delegates":[`, "unexpected EOF"},
		"two documents":                      {with(`"name":"a"`) + `{}`, "more than one JSON document"},
		"null":                               {`null`, "at least one delegate"},
		"a key of the wrong type":            {with(`"confDir":5`), "confDir: a JSON number"},
		"a relative path":                    {with(`"cniDir":"var/lib"`), `cniDir "var/lib": use an absolute path`},
		"a relative clusterNetwork path":     {`{"clusterNetwork":"net.d/x"}`, `"net.d/x": use an absolute path`},
		"a relative path in defaultNetworks": {with(`"defaultNetworks":["a/b"]`), `"a/b": use an absolute path`},
		"a path with NUL":                    {with(`"binDir":"/a\u0000b"`), "binDir"},
		"an unknown log level":               {with(`"logLevel":"loud"`), `logLevel "loud": use "error"`},
		"an unknown choice":                  {with(`"unsupportedRequests":"maybe"`), `use "verify", "refuse" or "ignore"`},
		"no network":                         {with(`"maxNetworksPerPod":0`), "use 1 to 300"},
		"more networks than a pod can have":  {with(`"maxNetworksPerPod":301`), "use 1 to 300"},
		"a namespace that is none":           {with(`"podNamespace":"A/b"`), `podNamespace "A/b"`},
		"no time for delegates":              {with(`"delegateTimeoutSeconds":0`), "use 1 to 600"},
		"a grace of less than nothing":       {with(`"statusGraceSeconds":-1`), "use 0 to 86400"},
		"more time than a runtime waits":     {with(`"delegateTimeoutSeconds":601`), "use 1 to 600"},
		"fewer plugins than none":            {with(`"maxParallelDelegates":-1`), "use 1 to 1024, or 0 for no limit"},
		"more plugins than a node can bear":  {with(`"maxParallelDelegates":1025`), `maxParallelDelegates "1025": use 1 to 1024`},
		"negative rotation":                  {with(`"logOptions":{"maxSize":-1}`), "cannot be negative"},
		"megabytes":                          {`{"name":"` + strings.Repeat("x", MaxBytes) + `"}`, "at most"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse([]byte(tc.in))
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Parse = %+v, %v; want ErrInvalid saying %q", got, err, tc.says)
			}
		})
	}
}

func TestADaemonDoesNotReplaceTheDefaultNetworkUnlessTheConfigurationSaysSo(t *testing.T) {
	t.Parallel()
	with := func(keys string) string { return `{"delegates":[` + bridge + `],` + keys + `}` }
	for text, want := range map[string]bool{
		`"manifestDir":"/m"`: true, `"kubeconfig":"/k"`: true, `"daemonSocketDir":"/d"`: false,
		`"daemonSocketDir":"/d","defaultNetworkAnnotation":true`: true, `"kubeconfig":"/k","defaultNetworkAnnotation":false`: false,
	} {
		if c, err := Parse([]byte(with(text))); err != nil || c.DefaultNetworkAnnotation != want {
			t.Errorf("%s: %v, %v; want %v", text, c.DefaultNetworkAnnotation, err, want)
		}
	}
	for text, want := range map[string]RequestPolicy{"verify": VerifyRequests, "refuse": RefuseRequests, "fail": RefuseRequests, "ignore": IgnoreRequests} {
		if c, err := Parse([]byte(with(`"unsupportedRequests":"` + text + `"`))); err != nil || c.UnsupportedRequests != want {
			t.Errorf("%s: %v, %v; want %v", text, c, err, want)
		}
	}
}

func TestInlineNetworks(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		bridge:                                  "",
		`{"name":"x"}`:                          `neither "type" nor "plugins"`,
		`{"plugins":[{}]}`:                      `no "type"`,
		`7`:                                     "not a JSON object",
		`{"type":"plexus"}`:                     "call Plexus from Plexus",
		`{"type":"mine"}`:                       "call Plexus from Plexus", // the name under which the runtime found it
		`{"type":"x","ipam":{"type":"plexus"}}`: "call Plexus from Plexus",
	} {
		c, err := Parse([]byte(`{"cniVersion":"1.0.0","name":"n","type":"mine","delegates":[` + text + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = c.Inline(0); says == "" && err != nil || says != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "delegates[0]")) {
			t.Errorf("Inline of %s = %v, want an error saying %q", text, err, says)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"n","delegates":[` + bridge + `]}`))
	f.Add([]byte(`{"clusterNetwork":"/a/b","logOptions":{"maxAge":1},"globalNamespaces":"a"}`))
	f.Add([]byte(`{"delegates":[{"plugins":[{"type":"x"}]}],"runtimeConfig":null}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if c.ClusterNetwork == "" && len(c.Delegates) == 0 {
			t.Error("accepted without a default network")
		}
		if c.CNIDir == "" || c.CNIDir[0] != '/' {
			t.Errorf("accepted with cniDir %q", c.CNIDir)
		}
	})
}
