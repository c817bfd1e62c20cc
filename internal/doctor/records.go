// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/inspect"
	"github.com/plexus-cni/plexus/internal/legacy"
)

// checkRecords compares the records with the namespaces of their pods.
func (d *Doctor) checkRecords(_ context.Context, n *node) ([]Finding, error) {
	var found []Finding
	if d.Choose == nil {
		found = append(found, brokenRecords(n)...)
		found = append(found, d.legacyOrphans(n)...)
	}
	for i := range n.chosen {
		found = append(found, podFindings(n, &n.chosen[i])...)
	}
	return found, n.podsErr
}

func brokenRecords(n *node) []Finding {
	var found []Finding
	for _, r := range n.records {
		object := "record " + r.key
		switch {
		case r.err == nil:
		case r.key == "":
			found = append(found, newFinding(CheckFailed, "records in "+r.dir, oneLine(r.err.Error()), "run as root on the node"))
		case errors.Is(r.err, delegate.ErrVersion):
			found = append(found, newFinding(RecordNewer, object, oneLine(r.err.Error()), "install the newer Plexus again: this one can neither detach that pod nor remove stale records"))
		default:
			found = append(found, newFinding(RecordCorrupt, object, oneLine(r.err.Error()), "delete its pod: DEL sets the record aside and uses libcni's cache; if there is no such pod, remove the file once you know that its addresses and interfaces are free"))
		}
	}
	return found
}

// podFindings are those of one sandbox.
func podFindings(n *node, p *inspect.Pod) []Finding {
	object := "pod " + p.Ref()
	if p.State == inspect.Gone {
		return []Finding{newFinding(RecordOrphan, object, fmt.Sprintf("its network namespace is gone, but it still holds %s", holds(p)), orphanMend(n, p))}
	}
	const again = "delete the pod, so that it is created again"
	var found []Finding
	bad := false
	for i := range p.Interfaces {
		f, ok := interfaceFinding(object, &p.Interfaces[i], p.Seen, again)
		if ok {
			found = append(found, f)
		}
		bad = bad || p.Interfaces[i].State == inspect.Failed
	}
	if !p.Seen {
		mend := "run as root on the node"
		found = append(found, newFinding(NamespaceUnseen, object, strings.Join(append(slices.Clone(p.Problems), "its network namespace was not examined"), "; "), mend))
	}
	if p.State == inspect.Failed && !bad {
		found = append(found, newFinding(RecordUnfinished, object, "its ADD did not finish", again))
	}
	return found
}

func interfaceFinding(object string, i *inspect.Interface, seen bool, again string) (Finding, bool) {
	where := fmt.Sprintf("interface %s (network %s) ", i.Name, i.Network)
	switch {
	case i.State != inspect.Failed:
		return Finding{}, false
	case i.Error != "":
		return newFinding(AttachmentFailed, object, where+"failed: "+oneLine(i.Error), "fix what its plugin reports; the next DEL or GC retries what could not be undone"), true
	case i.Live == nil && seen && i.Recorded != nil:
		return newFinding(InterfaceMissing, object, where+"is no longer there", again), true
	case i.Live != nil && !i.Live.Up:
		return newFinding(InterfaceDown, object, where+"is down", "find out what did that, or "+again), true
	case i.Live != nil:
		return newFinding(AddressLost, object, where+"has lost an address that it was given", again), true
	}
	return newFinding(RecordUnfinished, object, where+"was left midway", again), true
}

// holds names what a sandbox has on record.
func holds(p *inspect.Pod) string {
	var parts []string
	for i := range p.Interfaces {
		each := &p.Interfaces[i]
		for _, a := range each.Addresses() {
			parts = append(parts, a.Addr().String())
		}
		if each.Device != "" {
			parts = append(parts, "device "+each.Device)
		}
	}
	if len(parts) == 0 {
		return "its record"
	}
	return list(parts)
}

func orphanMend(n *node, p *inspect.Pod) string {
	switch {
	case n.conf == nil || p.StateDir != n.conf.cfg.CNIDir:
		return "plexusctl detach -f DIR, with the file or folder that it was attached from"
	case n.recordOf(p) == nil:
		return "the container runtime that created it releases it with its next DEL or GC: it uses another configuration of Plexus"
	}
	return "plexusctl doctor --fix, or wait for the container runtime's next DEL or GC"
}

// recordOf is the record of a sandbox that the configuration's own DEL may undo; nil for another's.
func (n *node) recordOf(p *inspect.Pod) *delegate.Plan {
	for _, r := range n.records {
		if r.plan != nil && r.dir == p.StateDir && r.dir == n.conf.cfg.CNIDir && r.plan.Sandbox.ContainerID == p.ContainerID && r.plan.ConfName == n.conf.cfg.Name {
			return r.plan
		}
	}
	return nil
}

// orphan is a sandbox that is gone and still holds something.
type orphan struct {
	object, holds string
	sandbox       delegate.Sandbox
	// args are CNI_ARGS, for the log.
	args string
}

// orphans are those that the plugin's DEL can give back: of its own state folder and its configuration.
func orphans(n *node) []orphan {
	if n.conf == nil {
		return nil
	}
	var found []orphan
	for i := range n.chosen {
		p := &n.chosen[i]
		plan := n.recordOf(p)
		if p.State != inspect.Gone || plan == nil {
			continue
		}
		o := orphan{object: "pod " + p.Ref(), holds: holds(p), sandbox: plan.Sandbox}
		if p.Name != "" {
			o.args = fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s", p.Namespace, p.Name, p.ContainerID)
		}
		found = append(found, o)
	}
	return found
}

// fix gives back what orphans hold, by the DEL of Plexus, the one way to undo.
func (d *Doctor) fix(ctx context.Context, n *node) []Finding {
	return each(ctx, orphans(n), func(o orphan) []Finding {
		environ := []string{"CNI_CONTAINERID=" + o.sandbox.ContainerID, "CNI_IFNAME=" + o.sandbox.IfName, "CNI_NETNS="}
		if o.args != "" {
			environ = append(environ, "CNI_ARGS="+o.args)
		}
		if err := d.call(ctx, n.conf.cfg, "DEL", n.conf.plugin, environ...); err != nil {
			return []Finding{newFinding(FixFailed, o.object, oneLine(err.Error()), "fix what it names, and try again: what could not be undone stays on record")}
		}
		return []Finding{newFinding(Fixed, o.object, "its network namespace is gone; released: "+o.holds, "")}
	})
}

// legacyOrphans are containers that the former meta-plugin left state of, and that are gone.
func (d *Doctor) legacyOrphans(n *node) []Finding {
	if n.conf == nil {
		return nil
	}
	dir := n.conf.cfg.LegacyCNIDir
	ids, err := legacy.Containers(dir)
	if err != nil {
		return []Finding{newFinding(CheckFailed, "legacyCNIDir "+dir, oneLine(err.Error()), "run as root on the node")}
	}
	var gone []string
	for _, id := range ids {
		if !d.isAlive(n, id) {
			gone = append(gone, fmt.Sprintf("%.12s", id))
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return []Finding{newFinding(LegacyOrphan, "legacyCNIDir "+dir, fmt.Sprintf("%d containers that Multus attached are gone, but still hold their addresses: %s", len(gone), list(gone)),
		"have the container runtime call GC (CRI-O 1.31): Plexus releases them")}
}

// runtimeName is how container runtimes name the network namespaces that they make.
var runtimeName = regexp.MustCompile(`^(cni-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// checkNamespaces looks for network namespaces of the runtime that nobody lives in.
func (d *Doctor) checkNamespaces(_ context.Context, n *node) ([]Finding, error) {
	if d.Choose != nil {
		return nil, nil // it is about those that are no pod's
	}
	entries, err := os.ReadDir(d.Paths.NetNS)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	inhabited, err := d.inhabited()
	if err != nil {
		return []Finding{newFinding(CheckSkipped, "namespaces in "+d.Paths.NetNS, "which of them have processes cannot be seen: "+err.Error(), "run as root on the node itself, or with the capability CAP_SYS_PTRACE: the namespaces of other processes cannot be looked at without it")}, nil
	}
	var found []Finding
	for _, e := range entries {
		path := filepath.Join(d.Paths.NetNS, e.Name())
		info, err := e.Info()
		if err != nil || !runtimeName.MatchString(e.Name()) || d.Now().Sub(info.ModTime()) < young {
			continue
		}
		id, err := d.Kernel.NetNSID(path)
		if err != nil || inhabited[id] {
			continue
		}
		object := "namespace " + path
		at := slices.IndexFunc(n.pods, func(p inspect.Pod) bool { return filepath.Base(p.NetNS) == e.Name() })
		if at >= 0 {
			found = append(found, newFinding(NamespaceIdle, object, fmt.Sprintf("no process runs in it, but pod %s is still attached", n.pods[at].Ref()), "end the sandbox: crictl stopp and crictl rmp"))
			continue
		}
		found = append(found, newFinding(NamespaceOrphan, object, "no process runs in it, and no pod on record is attached to it", "once `crictl pods` does not list its sandbox either: ip netns delete "+e.Name()))
	}
	return found, nil
}

// inhabited are the IDs of the network namespaces that processes live in.
func (d *Doctor) inhabited() (map[string]bool, error) {
	processes, err := os.ReadDir(d.Paths.Proc)
	if err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for _, p := range processes {
		if strings.Trim(p.Name(), "0123456789") != "" {
			continue
		}
		info, err := os.Stat(filepath.Join(d.Paths.Proc, p.Name(), "ns", "net"))
		if errors.Is(err, os.ErrPermission) {
			return nil, err
		}
		if err != nil {
			continue // it has ended
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			ids[fmt.Sprintf("%d:%d", st.Dev, st.Ino)] = true
		}
	}
	return ids, nil
}

// recently is how long ago a failure is still of interest.
const recently = time.Hour

// checkLog tells of pods whose last ADD failed: nothing of them is on record.
func (d *Doctor) checkLog(_ context.Context, n *node) ([]Finding, error) {
	if n.conf == nil || n.conf.cfg.Log.File == "" {
		if d.Pod != "" && n.conf != nil {
			return []Finding{newFinding(CheckSkipped, "log", "Plexus keeps none, so ADDs that failed cannot be reported", "set \"logFile\" in "+n.conf.path)}, nil
		}
		return nil, nil
	}
	failures, err := inspect.Failures(n.conf.cfg.Log.File, d.Now().Add(-recently))
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, f := range failures {
		if d.Choose != nil && !matches(d.Pod, f.Pod) || d.deleted(f.Pod) {
			continue
		}
		found = append(found, newFinding(AddFailed, "pod "+f.Pod, fmt.Sprintf("its last ADD failed at %s (%d in the last hour): %s", f.Time.UTC().Format("15:04:05 UTC"), f.Count, oneLine(f.Text)),
			"fix what the error names; the kubelet tries again"))
	}
	return found, nil
}

// deleted reports whether the kubelet has had a pod, and no longer has it: nothing is left to fix. The folder of its log tells its
// UID and outlives it by a minute; the folder of its volumes goes with it. What cannot be told is not deleted.
func (d *Doctor) deleted(pod string) bool {
	if _, err := os.Stat(filepath.Join(d.Paths.Kubelet, "pods")); err != nil {
		return false // not that of a kubelet, or not to be seen
	}
	logs, err := os.ReadDir(d.Paths.PodLogs)
	if err != nil {
		return false
	}
	for _, l := range logs {
		uid, ok := strings.CutPrefix(l.Name(), strings.Replace(pod, "/", "_", 1)+"_")
		if !ok {
			continue
		}
		if _, err := os.Stat(filepath.Join(d.Paths.Kubelet, "pods", uid)); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// matches reports whether a pod of the log is the one that is asked for: by namespace/name, by name, or by "namespace/".
func matches(asked, pod string) bool {
	if namespace, ok := strings.CutSuffix(asked, "/"); ok {
		return strings.HasPrefix(pod, namespace+"/")
	}
	return pod == asked || !strings.Contains(asked, "/") && strings.HasSuffix(pod, "/"+asked)
}
