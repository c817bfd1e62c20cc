// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

var (
	// ErrPaths says that a folder has another path on the host than in this container. The configuration is read on the host: it would
	// name files that are not there.
	ErrPaths = errors.New("paths in the container and on the host differ")
	// ErrGone says that a folder was removed on the host. Whoever has it mounted goes on in the removed one.
	ErrGone = errors.New("folder was removed on the host")
)

// MountTable is the kernel's table of this process' mounts (proc_pid_mountinfo(5)).
const MountTable = "/proc/self/mountinfo"

// mount is a line of the mount table.
type mount struct {
	device string // "major:minor"
	root   string // the path within the file system that is mounted
	point  string // where it is mounted
}

func parseMounts(r io.Reader) ([]mount, error) {
	var mounts []mount
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		const device, root, point = 2, 3, 4
		if len(fields) <= point {
			return nil, fmt.Errorf("mount table: line %q has %d fields", lines.Text(), len(fields))
		}
		mounts = append(mounts, mount{device: fields[device], root: unescape(fields[root]), point: unescape(fields[point])})
	}
	return mounts, lines.Err()
}

// unescape takes the octal escapes back by which the kernel writes blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// below is what path has after dir, with its slash; it reports whether path is dir or in it.
func below(path, dir string) (string, bool) {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/"))
	return rest, ok && (rest == "" || rest[0] == '/')
}

// hostPath is the path on the host of what is at path here, with links resolved; "" if the mount table does not tell. The table has
// paths within file systems. Those are the host's paths where the file system is the host's root, which shows by another mount of it
// that is where it is on the host: the kubelet's folder, for example.
func hostPath(mounts []mount, path string) string {
	var of *mount
	for i, m := range mounts {
		if _, ok := below(path, m.point); ok && (of == nil || len(m.point) >= len(of.point)) {
			of = &mounts[i] // the last one covers those before it
		}
	}
	if of == nil {
		return ""
	}
	rest, _ := below(path, of.point)
	for _, m := range mounts {
		if m.device == of.device && m.root == m.point && m.root != "/" {
			return filepath.Join(of.root, rest)
		}
	}
	return ""
}

// aliases are links of hosts by which one folder has two paths: file systems that are images keep /opt and /home in /var, and /var/run
// is /run.
func aliases(path string) []string {
	paths := []string{path}
	for _, alias := range [][2]string{{"/opt", "/var/opt"}, {"/home", "/var/home"}, {"/var/run", "/run"}} {
		if rest, ok := below(path, alias[0]); ok {
			paths = append(paths, alias[1]+rest)
		}
	}
	return paths
}

// checkPaths refuses folders that the host has at another path.
func checkPaths(table string, dirs map[string]string) error {
	f, err := os.Open(table)
	if err != nil {
		return fmt.Errorf("mount table: %w", err)
	}
	defer f.Close()
	mounts, err := parseMounts(f)
	if err != nil {
		return err
	}
	var all []error
	for flag, dir := range dirs {
		host := hostPath(mounts, filepath.Clean(dir))
		if host == "" || isAlias(host, filepath.Clean(dir)) {
			continue
		}
		all = append(all, fmt.Errorf("%w: --%s %s is %s on the host: mount it at the host's path and set --%s=%s, as the components for distributions in deploy/components do; if %s is a link to it on the host, set --host-links",
			ErrPaths, flag, dir, host, flag, host, dir))
	}
	return errors.Join(all...)
}

// isAlias reports whether two paths may name one folder of the host. A snap's "current" is a link to its revision.
func isAlias(host, dir string) bool {
	if slices.Contains(aliases(dir), host) {
		return true
	}
	before, after, ok := strings.Cut(dir, "/current/")
	if !ok {
		return false
	}
	revision, ok := strings.CutPrefix(strings.TrimSuffix(host, "/"+after), before+"/")
	return ok && revision != "" && !strings.Contains(revision, "/") && strings.HasSuffix(host, "/"+after)
}

// checkThere refuses a folder that was removed while it is mounted here.
func checkThere(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return nil //nolint:nilerr // It may come yet. One that is mounted is there, removed or not.
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink == 0 {
		return fmt.Errorf("%w: %s: this container has the removed one; it has to be started again", ErrGone, dir)
	}
	return nil
}

// denied adds to an error that says "permission denied" whose the file or folder at path is, and what to do.
func denied(path string, err error) error {
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	info, statErr := os.Stat(path)
	if statErr != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return err
	}
	owner := fmt.Sprintf("%s belongs to user %d and group %d and has mode %04o", path, stat.Uid, stat.Gid, info.Mode().Perm())
	if int(stat.Uid) == os.Geteuid() {
		return fmt.Errorf("%w: %s, which is right: look for SELinux, AppArmor, or a file system that is read-only or has it immutable (lsattr)", err, owner)
	}
	return fmt.Errorf("%w: %s, while plexusd runs as user %d without the capability DAC_OVERRIDE: run `chown root:root %s` on the node, or add deploy/components/dac-override",
		err, owner, os.Geteuid(), path)
}
