// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tables are mount tables as containers have them: lines without what is not read.
func tables() map[string]string {
	line := func(device, root, point string) string {
		return fmt.Sprintf("1 1 %s %s %s rw,relatime - ext4 /dev/x rw\n", device, root, point)
	}
	const disk, overlay, tmpfs = "259:1", "0:50", "0:25"
	root := line(overlay, "/", "/") + line(tmpfs, "/plexus", "/run/plexus")
	kubelet := line(disk, "/var/lib/kubelet/pod-resources", "/var/lib/kubelet/pod-resources")
	return map[string]string{
		"the host itself": line(disk, "/", "/") + line("0:5", "/", "/dev"),
		"defaults":        root + kubelet + line(disk, "/etc/cni/net.d", "/etc/cni/net.d") + line(disk, "/opt/cni/bin", "/opt/cni/bin"),
		"k3s, by its component": root + kubelet + line(disk, "/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/lib/rancher/k3s/agent/etc/cni/net.d") +
			line(disk, "/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/data/cni"),
		"k3s, the volumes alone": root + kubelet + line(disk, "/var/lib/rancher/k3s/agent/etc/cni/net.d", "/etc/cni/net.d") +
			line(disk, "/var/lib/rancher/k3s/data/cni", "/opt/cni/bin"),
		"microk8s, by its component": root + kubelet + line(disk, "/var/snap/microk8s/7234/args/cni-network", "/var/snap/microk8s/current/args/cni-network") +
			line(disk, "/var/snap/microk8s/7234/opt/cni/bin", "/var/snap/microk8s/current/opt/cni/bin"),
		"ostree": root + line(disk, "/ostree/deploy/fcos/var/lib/kubelet/pod-resources", "/var/lib/kubelet/pod-resources") +
			line(disk, "/ostree/deploy/fcos/deploy/0a1b.0/etc/cni/net.d", "/etc/cni/net.d") + line(disk, "/ostree/deploy/fcos/var/opt/cni/bin", "/opt/cni/bin"),
		"/opt is a link":  root + kubelet + line(disk, "/etc/cni/net.d", "/etc/cni/net.d") + line(disk, "/var/opt/cni/bin", "/opt/cni/bin"),
		"btrfs subvolume": root + line(disk, "/@/etc/cni/net.d", "/etc/cni/net.d") + line(disk, "/@/opt/cni/bin", "/opt/cni/bin"),
		"own partition":   root + kubelet + line("259:3", "/net.d", "/etc/cni/net.d") + line(disk, "/opt/cni/bin", "/opt/cni/bin"),
		"node in a container": root + line(disk, "/var/lib/docker/volumes/1/_data/lib/kubelet/pod-resources", "/var/lib/kubelet/pod-resources") +
			line("0:44", "/etc/cni/net.d", "/etc/cni/net.d") + line("0:44", "/opt/cni/bin", "/opt/cni/bin"),
		"a blank in a path":         root + kubelet + line(disk, `/srv/a\040b/net.d`, "/etc/cni/net.d"),
		"a folder above":            root + kubelet + line(disk, "/etc/cni", "/etc/cni") + line(disk, "/opt", "/opt"),
		"a folder above, elsewhere": root + kubelet + line(disk, "/srv/cni", "/etc/cni") + line(disk, "/opt", "/opt"),
		"covered":                   root + kubelet + line(disk, "/srv/net.d", "/etc/cni/net.d") + line(disk, "/etc/cni/net.d", "/etc/cni/net.d"),
	}
}

func TestFoldersThatTheHostHasElsewhere(t *testing.T) {
	t.Parallel()
	const conf, bin = "/etc/cni/net.d", "/opt/cni/bin"
	for name, tc := range map[string]struct {
		conf, bin string
		refused   []string // paths of the host that the error names
	}{
		"the host itself":            {conf, bin, nil},
		"defaults":                   {conf, bin, nil},
		"k3s, by its component":      {"/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/lib/rancher/k3s/data/cni", nil},
		"k3s, the volumes alone":     {conf, bin, []string{"/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/lib/rancher/k3s/data/cni"}},
		"microk8s, by its component": {"/var/snap/microk8s/current/args/cni-network", "/var/snap/microk8s/current/opt/cni/bin", nil},
		"ostree":                     {conf, bin, nil},
		"/opt is a link":             {conf, bin, nil},
		"btrfs subvolume":            {conf, bin, nil},
		"own partition":              {conf, bin, nil},
		"node in a container":        {conf, bin, nil},
		"a blank in a path":          {conf, "", []string{"/srv/a b/net.d"}},
		"a folder above":             {conf, bin, nil},
		"a folder above, elsewhere":  {conf, bin, []string{"/srv/cni/net.d"}},
		"covered":                    {conf, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := filepath.Join(t.TempDir(), "mountinfo")
			write(t, table, tables()[name])
			c := Conf{Dir: tc.conf, BinDir: tc.bin, SocketDir: "/run/plexus", MountTable: table}
			err := checkPaths(table, c.hostDirs())
			if (err != nil) != (len(tc.refused) > 0) || (err != nil && !errors.Is(err, ErrPaths)) {
				t.Fatalf("checkPaths = %v, want refused: %v", err, tc.refused)
			}
			for _, path := range tc.refused {
				if !strings.Contains(err.Error(), "is "+path+" on the host") {
					t.Errorf("error %v does not name %s", err, path)
				}
			}
		})
	}
}

// TestTheRealMountTableIsRead has the kernel's own lines.
func TestTheRealMountTableIsRead(t *testing.T) {
	t.Parallel()
	f, err := os.Open(MountTable)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mounts, err := parseMounts(f)
	if err != nil || !slices.ContainsFunc(mounts, func(m mount) bool { return m.point == "/" }) {
		t.Errorf("%d mounts, %v; want one of /", len(mounts), err)
	}
	if _, err = parseMounts(strings.NewReader("1 1 0:1\n")); err == nil {
		t.Error("a line without its fields was read")
	}
}

// TestNothingIsWrittenThatTheHostCanNotFollow is about the file on the host that names a path which only the container has.
func TestNothingIsWrittenThatTheHostCanNotFollow(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"10-flannel.conflist": flannel})
	table := filepath.Join(t.TempDir(), "mountinfo")
	write(t, table, fmt.Sprintf("1 1 8:1 /var/lib/rancher/net.d %s rw - ext4 d rw\n2 1 8:1 /var/lib/kubelet /var/lib/kubelet rw - ext4 d rw\n", dir))
	node := &Node{Conf: Conf{Dir: dir, SocketDir: "/run/plexus", MountTable: table}, Log: slog.New(slog.DiscardHandler)}
	if next := node.act(); !next.failed || !errors.Is(node.Ready(), ErrPaths) {
		t.Errorf("turn %+v, Ready = %v, want ErrPaths", next, node.Ready())
	}
	if diff := cmp.Diff([]string{"10-flannel.conflist"}, names(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestAFolderThatWasRemovedOnTheHostEndsKeep(t *testing.T) {
	t.Parallel()
	for _, which := range []string{"conf", "bin"} {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			removed := filepath.Join(t.TempDir(), "removed")
			if err := os.Mkdir(removed, 0o700); err != nil {
				t.Fatal(err)
			}
			d, err := os.Open(removed)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			// As a mount does, this path leads to the folder itself, removed or not.
			dirs := map[string]string{"conf": t.TempDir(), "bin": t.TempDir(), which: fmt.Sprintf("/proc/self/fd/%d", d.Fd())}
			write(t, filepath.Join(dirs["conf"], "10-flannel.conflist"), flannel)
			node := &Node{
				Conf:     Conf{Dir: dirs["conf"], SocketDir: "/run/plexus"},
				Programs: Programs{From: folder(t, map[string]string{"plexus": "x"}), To: dirs["bin"], Names: []string{"plexus"}},
				Log:      slog.New(slog.DiscardHandler),
			}
			if node.act(); node.Alive() != nil || node.Ready() != nil {
				t.Fatalf("Alive = %v, Ready = %v", node.Alive(), node.Ready())
			}
			ended := make(chan error, 1)
			go func() { ended <- node.Keep(t.Context()) }()
			for err = syscall.ENOTEMPTY; errors.Is(err, syscall.ENOTEMPTY); { // Keep may put a file back meanwhile
				err = os.RemoveAll(removed)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := node.Alive(); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), dirs[which]) {
				t.Errorf("Alive = %v, want ErrGone with the folder", err)
			}
			if err := <-ended; !errors.Is(err, ErrGone) {
				t.Errorf("Keep = %v, want ErrGone", err)
			}
		})
	}
}

func TestErrorsNameOwnerModeAndFix(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	denial := &os.PathError{Op: "open", Path: dir, Err: syscall.EACCES}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 1001, 1001); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		err := denied(dir, denial)
		for _, part := range []string{"permission denied", "user 1001", "mode 0755", "chown root:root " + dir, "deploy/components/dac-override"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("error %v does not say %q", err, part)
			}
		}
		return
	}
	if err := denied(dir, denial); !strings.Contains(err.Error(), "SELinux") {
		t.Errorf("error %v; want where else to look", err)
	}
}
