// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"strings"

	"github.com/plexus-cni/plexus/e2e/vm/guest"
)

const (
	cpus      = 2
	memoryMiB = 1024
	// maxPFs is as many as one digit of a MAC address tells apart.
	maxPFs = 8
)

// files are what one run of QEMU works with.
type files struct {
	kernel    string
	initramfs string
	work      string // Folder that is shared with the guest.
	output    string // Where frames of the guest go: a file or a pipe.
	console   string // Where lines of the kernel go, alike.
}

// commandLine is QEMU's, without the program. All PFs, and a card that is none of them, hang on one wire.
func commandLine(c Config, f files) []string {
	// On a host under load, an emulated timer is late, and the kernel panics over a timer that does not work: it is not to check.
	kernel := []string{"console=ttyS0", "panic=-1", "mitigations=off", "random.trust_cpu=on", "no_timer_check"}
	if !c.Verbose {
		kernel = append(kernel, "quiet")
	}
	if c.IOMMU {
		kernel = append(kernel, "intel_iommu=on")
	}
	// A computer with nothing but what is named, which does not start again after the kernel's panic.
	args := []string{
		"-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none",
		"-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max",
		"-smp", fmt.Sprint(cpus), "-m", fmt.Sprint(memoryMiB),
		"-kernel", f.kernel, "-initrd", f.initramfs, "-append", strings.Join(kernel, " "),
	}
	if c.IOMMU {
		// Before all devices that it is to translate for. Without interrupt remapping, VFIO refuses to hand out a device.
		args = append(args, "-device", "intel-iommu,intremap=on")
	}
	args = append(args,
		"-chardev", "file,id=console,path="+escape(f.console), "-serial", "chardev:console",
		"-device", "virtio-serial-pci",
		"-chardev", "file,id=output,path="+escape(f.output), "-device", "virtserialport,chardev=output,name="+guest.Port,
		"-fsdev", "local,id=work,security_model=none,path="+escape(f.work),
		"-device", "virtio-9p-pci,fsdev=work,mount_tag="+guest.WorkTag,
		"-netdev", "hubport,id=wire,hubid=0", "-device", "e1000e,netdev=wire,mac=52:54:00:ee:00:00,romfile=",
	)
	for i := range c.PFs {
		args = append(args,
			"-device", fmt.Sprintf("pcie-root-port,id=port%d,chassis=%d,slot=%d", i, i+1, i+1),
			"-netdev", fmt.Sprintf("hubport,id=pf%d,hubid=0", i),
			"-device", fmt.Sprintf("igb,bus=port%d,netdev=pf%d,mac=52:54:00:aa:0%d:00,romfile=", i, i, i),
		)
	}
	return args
}

// escape writes a value for QEMU's options, where a comma ends it.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }
