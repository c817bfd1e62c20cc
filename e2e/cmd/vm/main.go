// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

// Command vm runs programs in a virtual machine whose network cards have virtual functions.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/plexus-cni/plexus/e2e/components"
	"github.com/plexus-cni/plexus/e2e/vm"
)

const usage = `usage, in the folder of the module e2e:
  vm deps                               fetch what the virtual machine is made of
  vm run [flags] [--] PROGRAM [ARGS]    run a static program of this machine, named by its path, or one of the guest, by its name
flags of vm run:`

// Exit codes of their own, as timeout(1) has them. Any other is that of the program.
const (
	exitTimeout = 124
	exitFailure = 125
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		code = exitFailure
		if errors.Is(err, vm.ErrTimeout) {
			code = exitTimeout
		}
	}
	os.Exit(code)
}

// files is a flag for files of the work folder, each "SOURCE" or "SOURCE:NAME".
type files map[string]string

func (f files) String() string { return "" }

func (f files) Set(value string) error {
	source, name, ok := strings.Cut(value, ":")
	if !ok {
		name = filepath.Base(source)
	}
	if source == "" || name == "" {
		return errors.New("must be SOURCE or SOURCE:NAME")
	}
	f[name] = source
	return nil
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string { return "" }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func run(ctx context.Context, args []string) (int, error) {
	config := vm.Config{Output: os.Stdout, Files: files{}}
	flags := flag.NewFlagSet("vm run", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), usage)
		flags.PrintDefaults()
	}
	flags.IntVar(&config.PFs, "pfs", 2, "number of network cards with VFs: pf0, pf1")
	flags.BoolVar(&config.IOMMU, "iommu", false, "with an IOMMU, which vfio-pci takes")
	modules := flags.String("modules", "igb,igbvf", "kernel modules to load, separated by commas")
	flags.Var(files(config.Files), "file", "`SOURCE[:NAME]`, a file to put into the work folder; may be repeated")
	flags.Var((*list)(&config.Env), "env", "`NAME=VALUE` for the environment of the program; may be repeated")
	flags.StringVar(&config.Dir, "dir", "", "work folder to use and to keep (default: a temporary one)")
	flags.DurationVar(&config.Limit, "limit", 10*time.Minute, "time for boot and program; exit code 124 if it is exceeded")
	flags.BoolVar(&config.Verbose, "v", false, "show the messages of the guest's kernel on standard error")

	if len(args) == 0 {
		flags.Usage()
		return exitFailure, nil
	}
	cache, err := components.CacheDir(os.Getenv("PLEXUS_E2E_CACHE"))
	if err != nil {
		return 0, err
	}
	module, err := filepath.Abs(".")
	if err != nil {
		return 0, err
	}
	builder := vm.Builder{Module: module, Cache: cache, Log: os.Stderr}
	switch args[0] {
	case "deps":
		_, err := builder.Build(ctx)
		return 0, err
	case "run":
	default:
		flags.Usage()
		return exitFailure, nil
	}
	if err := flags.Parse(args[1:]); err != nil {
		return exitFailure, nil //nolint:nilerr // The flag package has said it.
	}
	if flags.NArg() == 0 {
		return 0, errors.New("no program named: vm run [flags] -- PROGRAM [ARGS]")
	}
	if config.Verbose {
		config.Console = os.Stderr
	}
	config.Program, config.Args = flags.Arg(0), flags.Args()[1:]
	config.Modules = strings.FieldsFunc(*modules, func(r rune) bool { return r == ',' })
	machine, err := builder.Find(ctx)
	if err != nil {
		return 0, err
	}
	return machine.Run(ctx, config)
}
