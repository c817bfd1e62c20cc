// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/netdev"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/record"
	"github.com/plexus-cni/plexus/internal/source/manifest"
)

const (
	// ifName is the interface that a runtime asks the default network for.
	ifName = "eth0"
	// lockTimeout bounds the wait for another plexusctl. It is short: a person waits.
	lockTimeout = 10 * time.Second
	// undoTimeout bounds the undo of one pod after a failure: no context that was cancelled does.
	undoTimeout = 2 * time.Minute
	// sandboxVersion is the version of the record's format.
	sandboxVersion = 1
)

// kernel is what a runtime asks of the host's kernel.
type kernel interface {
	CreateNetNS(path string) error
	DeleteNetNS(path string) error
	IsNetNS(path string) (bool, error)
	Links(netns string) ([]netdev.Link, error)
}

// sandbox is the record of one pod's sandbox: all that has to be undone, and what with. It is on disk before anything is done.
type sandbox struct {
	Version     int     `json:"version"`
	Pod         pod.Ref `json:"pod"`
	ContainerID string  `json:"containerID"`
	NetNS       string  `json:"netns"`
	// OwnNetNS is set when attach makes the namespace, so that detach deletes it.
	OwnNetNS bool `json:"ownNetNS,omitempty"`
	// ManifestDir is the file or folder that attach was given.
	ManifestDir string `json:"manifestDir"`
	// Staged is the folder that attach copied the manifests to, "" if Plexus reads them from ManifestDir.
	Staged string `json:"staged,omitempty"`
	// Conf is the configuration list of the ADD, which has to be that of the DEL (CNI 1.1.0 §4).
	Conf    json.RawMessage `json:"conf"`
	BinDirs []string        `json:"binDirs"`
	// Attached is set when ADD succeeded.
	Attached bool `json:"attached,omitempty"`
}

// request asks for one pod.
type request struct {
	pod     pod.Ref
	dir     string // the file or folder of its manifest, absolute
	staged  *stage // nil if Plexus can read the manifests from dir
	conf    []byte
	binDirs []string
	netns   string // an existing namespace, "" to make one
}

// runtime stands in for a container runtime.
type runtime struct {
	sandboxes *record.Store[sandbox]
	stateDir  string
	cacheDir  string // libcni's, as a runtime's
	netnsDir  string
	kernel    kernel
	plugins   invoke.Exec
	// force forgets what cannot be undone, and warn tells of it.
	force bool
	warn  func(text string)
}

func newRuntime(stateDir string, k kernel, plugins invoke.Exec) *runtime {
	dir := filepath.Join(stateDir, "plexusctl")
	return &runtime{
		sandboxes: record.Open[sandbox](dir), stateDir: stateDir, cacheDir: filepath.Join(dir, "cache"), netnsDir: netnsDir, kernel: k, plugins: plugins,
		warn: func(string) {},
	}
}

// detachHint is the command that undoes an attach.
func (r *runtime) detachHint(dir string, p pod.Ref) string {
	state := ""
	if r.stateDir != defaultStateDir {
		state = " --state-dir " + r.stateDir
	}
	return fmt.Sprintf("`plexusctl detach -f %s%s %s`", dir, state, p)
}

// hostPlugins lets libcni run the host's plugins as Plexus runs its own: bounded, and killed with their children.
type hostPlugins struct {
	version.PluginDecoder
	*delegate.Exec
}

var _ invoke.Exec = (*hostPlugins)(nil)

// FindInPath implements [invoke.Exec].
func (*hostPlugins) FindInPath(plugin string, paths []string) (string, error) {
	return delegate.FindProgram(plugin, paths)
}

// ExecPlugin implements [invoke.Exec].
func (p *hostPlugins) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	return p.Program(ctx, path, stdin, environ)
}

// key is the name of a pod's record; the name of a namespace has no "_".
func key(p pod.Ref) string { return p.Namespace + "_" + p.Name }

// attach makes all sandboxes asked for, or, when it fails, none.
func (r *runtime) attach(ctx context.Context, requests []request) ([]podStatus, error) {
	unlock, err := r.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var plans []*sandbox
	for _, q := range requests {
		s, err := r.plan(q)
		if err != nil {
			return nil, fmt.Errorf("pod %s: %w", q.pod, err)
		}
		plans = append(plans, s)
	}
	if len(requests) > 0 {
		if err := requests[0].staged.write(); err != nil { // one for all
			return nil, withMend(err)
		}
	}
	var status []podStatus
	for i, s := range plans {
		st, err := r.attachOne(ctx, s)
		if err != nil {
			if ctx.Err() != nil {
				// Which says it better than the plugin that was killed for it.
				err = fmt.Errorf("%w: what was attached is detached again", context.Cause(ctx))
			}
			return nil, r.rollBack(ctx, plans[:i+1], fmt.Errorf("pod %s: %w", s.Pod, err))
		}
		status = append(status, st)
	}
	return status, nil
}

// plan decides what a request means and refuses what is in the way. It touches nothing.
func (r *runtime) plan(q request) (*sandbox, error) {
	old, err := r.sandboxes.Load(key(q.pod))
	switch {
	case err == nil && old.Attached:
		return nil, fmt.Errorf("attached already: run %s first", r.detachHint(old.ManifestDir, q.pod))
	case err == nil:
		return nil, fmt.Errorf("an earlier attach or detach did not finish: run %s first", r.detachHint(old.ManifestDir, q.pod))
	case errors.Is(err, record.ErrCorrupt):
		return nil, fmt.Errorf("%w: run %s to set it aside", err, r.detachHint(q.dir, q.pod))
	case !errors.Is(err, fs.ErrNotExist):
		return nil, withMend(err)
	}
	list, err := libcni.NetworkConfFromBytes(q.conf)
	if err != nil {
		return nil, err
	}
	for _, p := range list.Plugins {
		// Or it could not be undone either, for want of the same program.
		if _, err = r.plugins.FindInPath(p.Network.Type, q.binDirs); err != nil {
			return nil, fmt.Errorf("%w; name its folder with --cni-bin", err)
		}
	}
	s := &sandbox{
		Staged: q.staged.dir(), Version: sandboxVersion, Pod: q.pod, ContainerID: newContainerID(), NetNS: q.netns, ManifestDir: q.dir, Conf: q.conf, BinDirs: q.binDirs,
	}
	if q.netns == "" {
		s.NetNS, s.OwnNetNS = filepath.Join(r.netnsDir, q.pod.Namespace+"-"+q.pod.Name), true
		if _, err = os.Lstat(s.NetNS); err == nil {
			return nil, fmt.Errorf("%s exists and was not created by plexusctl: delete it (`ip netns delete %s`), or use it with --netns", s.NetNS, filepath.Base(s.NetNS))
		}
		return s, nil
	}
	is, err := r.kernel.IsNetNS(q.netns)
	if err != nil {
		return nil, withMend(err)
	}
	if !is {
		return nil, fmt.Errorf("%s is not a network namespace: omit --netns to create one", q.netns)
	}
	return s, nil
}

// newContainerID draws an ID of the form that container runtimes use.
func newContainerID() string {
	var id [32]byte
	_, _ = rand.Read(id[:]) // never returns an error
	return hex.EncodeToString(id[:])
}

func (r *runtime) attachOne(ctx context.Context, s *sandbox) (podStatus, error) {
	list, err := libcni.NetworkConfFromBytes(s.Conf)
	if err != nil {
		return podStatus{}, err
	}
	if err = r.sandboxes.Save(key(s.Pod), s); err != nil {
		return podStatus{}, withMend(err)
	}
	if s.OwnNetNS {
		if err = r.kernel.CreateNetNS(s.NetNS); err != nil {
			if errors.Is(err, fs.ErrExist) {
				s.OwnNetNS = false // somebody was faster: it is theirs
			}
			return podStatus{}, withMend(err)
		}
	}
	result, err := r.cni(s.BinDirs).AddNetworkList(ctx, list, s.runtimeConf(s.NetNS))
	if err != nil {
		return podStatus{}, pluginError(s.Pod, err)
	}
	s.Attached = true
	if err = r.sandboxes.Save(key(s.Pod), s); err != nil {
		return podStatus{}, err
	}
	status, err := statusOf(s, list.Name, result)
	if err != nil {
		return podStatus{}, err
	}
	links, err := r.kernel.Links(s.NetNS)
	if err != nil {
		return podStatus{}, err
	}
	status.addMTU(links)
	return status, nil
}

// rollBack undoes what a failed attach has done, for all its pods. The cause stays what the user is told first.
func (r *runtime) rollBack(ctx context.Context, begun []*sandbox, cause error) error {
	errs := []error{cause}
	for _, s := range slices.Backward(begun) {
		undoCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		if err := r.undo(undoCtx, s, s.BinDirs); err != nil {
			errs = append(errs, fmt.Errorf("pod %s: rollback failed; run %s, or, if that fails too, the same with --force: %w", s.Pod, r.detachHint(s.ManifestDir, s.Pod), err))
		}
		cancel()
	}
	return errors.Join(errs...)
}

// detach undoes the sandboxes of the pods named, or all that were attached from dir, tells of each, and goes on after an error.
func (r *runtime) detach(ctx context.Context, dir string, names, binDirs []string, tell func(pod string, attached bool)) error {
	if keys, err := r.sandboxes.Keys(); err == nil && len(keys) == 0 {
		for _, name := range names {
			tell(name, false)
		}
		return nil // without making even a folder for the lock
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	sandboxes, failed := r.load()
	errs := []error{failed}
	chosen, err := choose(sandboxes, dir, names)
	if err != nil {
		return err
	}
	for _, s := range chosen.sandboxes {
		if err := r.undo(ctx, s, append(slices.Clone(binDirs), s.BinDirs...)); err != nil {
			errs = append(errs, fmt.Errorf("pod %s: %w", s.Pod, err))
			continue
		}
		tell(s.Pod.String(), true)
	}
	for _, name := range chosen.missing {
		tell(name, false)
	}
	return errors.Join(errs...)
}

// load reads all records. One that cannot be read is set aside, so that it is in the way only once.
func (r *runtime) load() ([]*sandbox, error) {
	keys, err := r.sandboxes.Keys()
	if err != nil {
		return nil, withMend(err)
	}
	var sandboxes []*sandbox
	var errs []error
	for _, k := range keys {
		s, err := r.sandboxes.Load(k)
		if err == nil {
			err = s.validate(k)
		}
		switch {
		case err == nil:
			sandboxes = append(sandboxes, s)
		case errors.Is(err, record.ErrCorrupt):
			errs = append(errs, fmt.Errorf("%w: it is set aside as *.corrupt; delete the network namespace that it names, if that is left", err), r.sandboxes.Quarantine(k))
		default:
			errs = append(errs, withMend(err))
		}
	}
	return sandboxes, errors.Join(errs...)
}

func (s *sandbox) validate(k string) error {
	switch {
	case s.Version > sandboxVersion:
		return fmt.Errorf("record %s has version %d, and this plexusctl knows %d: use a newer plexusctl", k, s.Version, sandboxVersion)
	case key(s.Pod) != k, s.ContainerID == "", !filepath.IsAbs(s.NetNS), !filepath.IsAbs(s.ManifestDir):
		return fmt.Errorf("%w: record %s does not name its pod, container and folders", record.ErrCorrupt, k)
	}
	return nil
}

// chosen is what a detach is about.
type chosen struct {
	sandboxes []*sandbox
	missing   []string // the names of no sandbox
}

// choose picks the sandboxes named, or all of the folder.
func choose(all []*sandbox, dir string, names []string) (*chosen, error) {
	if len(names) == 0 {
		return &chosen{sandboxes: slices.DeleteFunc(all, func(s *sandbox) bool { return s.ManifestDir != dir })}, nil
	}
	byPod := map[pod.Ref]*sandbox{}
	var refs []pod.Ref
	for _, s := range all {
		byPod[s.Pod] = s
		refs = append(refs, s.Pod)
	}
	found, err := pick(refs, names)
	if err != nil {
		return nil, err
	}
	c := &chosen{missing: found.missing}
	for _, p := range found.pods {
		s := byPod[p]
		if s.ManifestDir != dir {
			return nil, fmt.Errorf("pod %s is attached from %s, not from %s: correct -f", p, s.ManifestDir, dir)
		}
		c.sandboxes = append(c.sandboxes, s)
	}
	return c, nil
}

// undo gives back all that a sandbox holds and forgets it. What is left after an error is on record still.
func (r *runtime) undo(ctx context.Context, s *sandbox, binDirs []string) error {
	list, err := libcni.NetworkConfFromBytes(s.Conf)
	if err != nil {
		return err
	}
	// A namespace that is gone, perhaps with the machine's last boot, is no longer named (CNI 1.1.0 §2, CNI_NETNS).
	netns := s.NetNS
	if is, err := r.kernel.IsNetNS(netns); err != nil || !is {
		netns = ""
	}
	// The namespace outlives a DEL that failed: the next one may need it.
	if err := r.cni(binDirs).DelNetworkList(ctx, list, s.runtimeConf(netns)); err != nil {
		if !r.force {
			return pluginError(s.Pod, err)
		}
		r.warn(fmt.Sprintf("pod %s: forgotten although its networks could not be undone; they may still hold addresses or devices: %v", s.Pod, pluginError(s.Pod, err)))
	}
	if s.OwnNetNS {
		if err := r.kernel.DeleteNetNS(s.NetNS); err != nil {
			return withMend(err)
		}
	}
	status := s.statusFile()
	if err := os.Remove(status); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return withMend(err)
	}
	_ = os.Remove(filepath.Dir(status)) // fails unless it was the last one there
	if err := r.sandboxes.Delete(key(s.Pod)); err != nil {
		return err
	}
	return r.unstage(s)
}

// unstage removes the copy of the manifests that no sandbox needs any more.
func (r *runtime) unstage(s *sandbox) error {
	if s.Staged == "" {
		return nil
	}
	others, err := r.load()
	if err != nil || slices.ContainsFunc(others, func(o *sandbox) bool { return o.Staged == s.Staged }) {
		return nil //nolint:nilerr // who reads the records next is told
	}
	return withMend(os.RemoveAll(s.Staged))
}

// statusFile is where Plexus writes the pod's network-status.
func (s *sandbox) statusFile() string {
	return manifest.New(cmp.Or(s.Staged, s.ManifestDir)).StatusFile(s.Pod)
}

func (r *runtime) cni(binDirs []string) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(binDirs, r.cacheDir, r.plugins)
}

func (s *sandbox) runtimeConf(netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: s.ContainerID, NetNS: netns, IfName: ifName, Args: pod.Args{Pod: s.Pod, InfraContainerID: s.ContainerID}.CNIArgs(),
	}
}

// lock keeps other plexusctl away.
func (r *runtime) lock(ctx context.Context) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	l, err := r.sandboxes.LockAll(ctx, true)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("another plexusctl is running: try again when it has finished: %w", err)
	}
	if err != nil {
		return nil, withMend(err)
	}
	return func() { _ = l.Unlock() }, nil // the lock ends with the process at the latest
}

// withMend adds to an error what the user can do about it.
func withMend(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run plexusctl as root", err)
	}
	return err
}

// pluginError is what Plexus says of a failed call, without what libcni puts around it. Plexus names pod, network and plugin itself;
// the pod is left to whoever puts it before all errors.
func pluginError(p pod.Ref, err error) error {
	e, ok := errors.AsType[*types.Error](err)
	if !ok {
		return err
	}
	text := strings.TrimPrefix(e.Msg, "pod "+p.String()+": ")
	if e.Details != "" {
		text += ": " + e.Details
	}
	return fmt.Errorf("%s (CNI code %d)", text, e.Code)
}
