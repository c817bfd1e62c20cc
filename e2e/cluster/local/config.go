// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"strings"

	"github.com/plexus-cni/plexus/e2e/cluster"
)

// The addresses of a cluster. The first network is the one that only the machine and the node share, of the range that RFC 2544
// sets aside for tests; the others exist on the node alone.
const (
	serviceNetwork = "10.96.0.0/16"
	serviceAddress = "10.96.0.1" // Of the Service kubernetes.
	podNetwork     = "10.244.0.0/24"
	apiPort        = 6443
	pauseImage     = "e2e.plexus.local/pause:1"
)

func machineAddress(index int) string { return fmt.Sprintf("198.18.%d.1", index) }
func nodeAddress(index int) string    { return fmt.Sprintf("198.18.%d.2", index) }

// defaultNetwork is the cluster's own network configuration. From CNI 1.1.0 on the runtime asks for its STATUS, and the node is as ready as
// the answer says.
const defaultNetwork = `{
  "cniVersion": "1.1.0",
  "name": "cluster",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "` + podNetwork + `"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}
  ]
}
`

// serviceRules stand in for kube-proxy for the one Service that pods which talk to the API server need.
func serviceRules(node string) string {
	const rules = `table ip e2e {
  chain prerouting { type nat hook prerouting priority -100; ip daddr SERVICE tcp dport 443 dnat to NODE; }
  chain output { type nat hook output priority -100; ip daddr SERVICE tcp dport 443 dnat to NODE; }
}
`
	return strings.NewReplacer("SERVICE", serviceAddress, "NODE", fmt.Sprintf("%s:%d", node, apiPort)).Replace(rules)
}

// auditPolicy logs who asked for what, once for each request.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

func containerdConfig(runc string) string {
	return `version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
disabled_plugins = ['io.containerd.nri.v1.nri']
[grpc]
  address = '` + containerdSocket + `'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '` + pauseImage + `'
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  # Virtual machines may lack CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '` + runc + `'
  SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/opt/cni/bin']
  conf_dir = '/etc/cni/net.d'
  max_conf_num = 1
`
}

// staticPods is the kubelet's folder of pods that are none of the API server's; kind's is the same.
const staticPods = "/etc/kubernetes/manifests"

func kubeletConfig(cgroup, clientCA string) string {
	return `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "` + clientCA + `"}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /` + cgroup + `
containerRuntimeEndpoint: unix://` + containerdSocket + `
enforceNodeAllocatable: []
eventRecordQPS: 0
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
maxPods: 200
nodeStatusUpdateFrequency: 5s
podCIDR: ` + podNetwork + `
registryPullQPS: 0
resolvConf: ""
serializeImagePulls: false
staticPodPath: ` + staticPods + `
`
}

// commands are the command lines of the components, without the arguments of Options.Args.
func (l *Local) commands() map[cluster.Component][]string {
	var (
		address = nodeAddress(l.options.Index)
		etcd    = "http://127.0.0.1:2379"
		peer    = "http://127.0.0.1:2380"
		pki     = func(name string) string { return l.path("pki", name) }
		conf    = func(name string) string { return l.path("conf", name) }
	)
	return map[cluster.Component][]string{
		cluster.Etcd: {
			"--name=e2e", "--data-dir=" + l.path("etcd"), "--unsafe-no-fsync",
			"--listen-client-urls=" + etcd, "--advertise-client-urls=" + etcd,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=e2e=" + peer,
		},
		cluster.APIServer: {
			"--etcd-servers=" + etcd, "--advertise-address=" + address, fmt.Sprintf("--secure-port=%d", apiPort),
			"--service-cluster-ip-range=" + serviceNetwork, "--allow-privileged=true",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--client-ca-file=" + pki("ca.crt"),
			"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
			"--kubelet-client-certificate=" + pki("admin.crt"), "--kubelet-client-key=" + pki("admin.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + pki("tokens.pub"), "--service-account-signing-key-file=" + pki("tokens.key"),
			"--audit-policy-file=" + conf("audit-policy.yaml"), "--audit-log-path=" + l.AuditLog(),
			"--profiling=false",
		},
		cluster.ControllerManager: {
			"--kubeconfig=" + conf("kube-controller-manager.kubeconfig"),
			"--service-account-private-key-file=" + pki("tokens.key"), "--root-ca-file=" + pki("ca.crt"),
			"--leader-elect=false", "--allocate-node-cidrs=false", "--profiling=false",
		},
		cluster.Scheduler: {
			"--kubeconfig=" + conf("kube-scheduler.kubeconfig"), "--leader-elect=false", "--profiling=false",
		},
		cluster.Containerd: {"--config=" + conf("containerd.toml")},
		cluster.Kubelet: {
			"--config=" + conf("kubelet.yaml"), "--kubeconfig=" + conf("kubelet.kubeconfig"),
			"--hostname-override=" + NodeName, "--node-ip=" + address,
			"--root-dir=/var/lib/kubelet", "--cert-dir=/var/lib/kubelet/pki", "--v=2",
			"--vmodule=kubelet=4", // It logs what the runtime's status is each time that it has asked for it.
		},
	}
}
