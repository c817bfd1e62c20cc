// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// startTimeout is how long a pod of our own may take to start; its image is on the node.
	startTimeout = time.Minute
	// deleteTimeout bounds the undo, which no ctrl-C does.
	deleteTimeout = 30 * time.Second
	// endGrace is how long a command on the node may take to end when it is told to.
	endGrace = 10 * time.Second
)

// selector is the label of plexusd's DaemonSet and of its pods.
const selector = "app.kubernetes.io/name=plexus"

// kube is what is asked of the cluster.
type kube interface {
	// with is the same for another context and kubeconfig; "" stands for kubectl's own choice.
	with(kubeContext, kubeconfig string) kube
	pod(ctx context.Context, namespace, name string) (pod, error)
	// currentNamespace is the one that kubectl takes without -n.
	currentNamespace(ctx context.Context) (string, error)
	// daemonSet finds the DaemonSet of plexusd; nil if there is none.
	daemonSet(ctx context.Context, namespace string) (*daemonSet, error)
	// daemons are the running pods of the DaemonSet, on one node or on all.
	daemons(ctx context.Context, set *daemonSet, node string) ([]daemon, error)
	// nodeNames are those of all nodes of the cluster.
	nodeNames(ctx context.Context) ([]string, error)
	// privileged makes a pod on a node that can do everything there, of the DaemonSet's image, and returns what deletes it.
	privileged(ctx context.Context, set *daemonSet, node string, deadline time.Duration) (container, func(), error)
	// exec runs a program in a container, and tells it by the end of its input when ctx is done.
	exec(ctx context.Context, c container, out, stderr io.Writer, program ...string) error
}

// pod is a pod that is asked about.
type pod struct{ namespace, name, node string }

func (p pod) ref() string { return p.namespace + "/" + p.name }

// daemonSet is that of plexusd. Whoever may create a pod in its namespace can label it as one of plexusd's, so what is run, and where, goes by
// the DaemonSet alone.
type daemonSet struct {
	namespace, name, uid string
	// container is the name of plexusd's container.
	container, image string
	// mounts are the paths in the container that have something of the node.
	mounts []string
}

// sees reports whether a path of the node is mounted in plexusd's container.
func (s *daemonSet) sees(path string) bool {
	return slices.ContainsFunc(s.mounts, func(m string) bool { return m == path || strings.HasPrefix(path, strings.TrimSuffix(m, "/")+"/") })
}

// daemon is a pod of plexusd, "" where none runs.
type daemon struct{ name, node string }

// container is where a program can be run.
type container struct{ namespace, pod, name string }

// kubectl asks the cluster with the user's kubectl, and so with the user's rights.
type kubectl struct {
	program string
	flags   []string
	stderr  io.Writer
}

func (k *kubectl) with(kubeContext, kubeconfig string) kube {
	other := &kubectl{program: k.program, stderr: k.stderr}
	if kubeContext != "" {
		other.flags = append(other.flags, "--context="+kubeContext)
	}
	if kubeconfig != "" {
		other.flags = append(other.flags, "--kubeconfig="+kubeconfig)
	}
	return other
}

// meta is what is needed of any object's metadata.
type meta struct {
	Name            string `json:"name"`
	Namespace       string `json:"namespace"`
	UID             string `json:"uid"`
	OwnerReferences []struct {
		UID        string `json:"uid"`
		Controller bool   `json:"controller"`
	} `json:"ownerReferences"`
}

// podObject is what is needed of a pod's JSON.
type podObject struct {
	Metadata meta    `json:"metadata"`
	Spec     podSpec `json:"spec"`
	Status   struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

type podSpec struct {
	NodeName   string `json:"nodeName"`
	Containers []struct {
		Name         string `json:"name"`
		Image        string `json:"image"`
		VolumeMounts []struct {
			MountPath string `json:"mountPath"`
		} `json:"volumeMounts"`
	} `json:"containers"`
}

func (k *kubectl) pod(ctx context.Context, namespace, name string) (pod, error) {
	args := []string{"get", "pod", "-o", "json"}
	if ns, rest, ok := strings.Cut(name, "/"); ok {
		namespace, name = ns, rest
	}
	if namespace != "" {
		args = append(args, "-n", namespace)
	}
	var o podObject
	if err := k.get(ctx, &o, append(args, "--", name)...); err != nil {
		return pod{}, err
	}
	return pod{namespace: o.Metadata.Namespace, name: o.Metadata.Name, node: o.Spec.NodeName}, nil
}

func (k *kubectl) currentNamespace(ctx context.Context) (string, error) {
	out, err := k.output(ctx, nil, "config", "view", "--minify", "-o", "jsonpath={..namespace}")
	if err != nil {
		return "", err
	}
	return cmp.Or(strings.TrimSpace(string(out)), "default"), nil
}

func (k *kubectl) daemonSet(ctx context.Context, namespace string) (*daemonSet, error) {
	var sets struct {
		Items []struct {
			Metadata meta `json:"metadata"`
			Spec     struct {
				Template podObject `json:"template"`
			} `json:"spec"`
		} `json:"items"`
	}
	if err := k.get(ctx, &sets, "get", "daemonsets", "-n", namespace, "-l", selector, "-o", "json"); err != nil {
		return nil, err
	}
	switch len(sets.Items) {
	case 0:
		return nil, nil //nolint:nilnil // none is an answer, not a failure
	case 1:
	default:
		return nil, fmt.Errorf("%d DaemonSets in namespace %s have the label %s: remove it from those that are not plexusd's", len(sets.Items), namespace, selector)
	}
	set := sets.Items[0]
	if len(set.Spec.Template.Spec.Containers) == 0 {
		return nil, fmt.Errorf("DaemonSet %s/%s has no container", namespace, set.Metadata.Name)
	}
	c := set.Spec.Template.Spec.Containers[0]
	found := &daemonSet{namespace: namespace, name: set.Metadata.Name, uid: set.Metadata.UID, container: c.Name, image: c.Image}
	for _, m := range c.VolumeMounts {
		found.mounts = append(found.mounts, m.MountPath)
	}
	return found, nil
}

func (k *kubectl) daemons(ctx context.Context, set *daemonSet, node string) ([]daemon, error) {
	args := []string{"get", "pods", "-n", set.namespace, "-l", selector, "-o", "json"}
	if node != "" {
		args = append(args, "--field-selector", "spec.nodeName="+node)
	}
	var list struct {
		Items []podObject `json:"items"`
	}
	if err := k.get(ctx, &list, args...); err != nil {
		return nil, err
	}
	var found []daemon
	for _, o := range list.Items {
		isOurs := false
		for _, owner := range o.Metadata.OwnerReferences {
			isOurs = isOurs || owner.Controller && owner.UID == set.uid
		}
		if isOurs && o.Status.Phase == "Running" {
			found = append(found, daemon{name: o.Metadata.Name, node: o.Spec.NodeName})
		}
	}
	return found, nil
}

func (k *kubectl) nodeNames(ctx context.Context) ([]string, error) {
	var list struct {
		Items []struct {
			Metadata meta `json:"metadata"`
		} `json:"items"`
	}
	if err := k.get(ctx, &list, "get", "nodes", "-o", "json"); err != nil {
		return nil, err
	}
	var names []string
	for _, n := range list.Items {
		names = append(names, n.Metadata.Name)
	}
	return names, nil
}

// get reads JSON. What kubectl says of an error goes to its user.
func (k *kubectl) get(ctx context.Context, into any, args ...string) error {
	out, err := k.output(ctx, nil, args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("read what kubectl %s printed: %w", args[0], err)
	}
	return nil
}

// output runs kubectl to its end.
func (k *kubectl) output(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, k.program, append(args[:1:1], append(k.flags, args[1:]...)...)...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), k.stderr
	out, err := cmd.Output()
	return out, explain(err)
}

// explain says what to do when there is no kubectl.
func explain(err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install kubectl, or add its folder to PATH", err)
	}
	return err
}

func (k *kubectl) privileged(ctx context.Context, set *daemonSet, node string, deadline time.Duration) (container, func(), error) {
	namespace := set.namespace
	manifest, err := json.Marshal(privilegedPod(set, node, deadline))
	if err != nil {
		return container{}, nil, err
	}
	out, err := k.output(ctx, manifest, "create", "-n", namespace, "-o", "name", "-f", "-")
	if err != nil {
		return container{}, nil, err
	}
	name := strings.TrimSpace(strings.TrimPrefix(string(out), "pod/"))
	_, _ = fmt.Fprintf(k.stderr, "privileged pod %s/%s on node %s: created, and deleted at the end\n", namespace, name, node)
	end := func() {
		undoCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTimeout)
		defer cancel()
		// kubectl has told its user; the node ends the pod after its deadline.
		_, _ = k.output(undoCtx, nil, "delete", "-n", namespace, "pod", name, "--wait=false")
	}
	if _, err := k.output(ctx, nil, "wait", "-n", namespace, "pod/"+name, "--for=condition=Ready", "--timeout="+startTimeout.String()); err != nil {
		end()
		return container{}, nil, err
	}
	return container{namespace: namespace, pod: name, name: programContainer}, end, nil
}

// programContainer is the container of a privileged pod.
const programContainer = "plexusctl"

// privilegedPod is a pod that sees the node's file system, processes and network as root does. It runs the image of plexusd, which is there,
// and has no rights in the cluster.
func privilegedPod(set *daemonSet, node string, deadline time.Duration) map[string]any {
	type m = map[string]any
	return m{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": m{"generateName": "plexusctl-", "namespace": set.namespace, "labels": m{"app.kubernetes.io/name": "plexusctl"}},
		"spec": m{
			"nodeName": node, "restartPolicy": "Never", "activeDeadlineSeconds": int(deadline.Seconds()), "terminationGracePeriodSeconds": 1,
			// No pod network is needed to look at one that is broken.
			"hostNetwork": true, "hostPID": true,
			"automountServiceAccountToken": false, "enableServiceLinks": false,
			"tolerations": []m{{"operator": "Exists"}},
			"containers": []m{{
				"name": programContainer, "image": set.image, "imagePullPolicy": "IfNotPresent", "command": []string{program, "hold"},
				"securityContext": m{"privileged": true, "runAsUser": 0},
				"volumeMounts":    []m{{"name": "host", "mountPath": hostRoot}},
			}},
			"volumes": []m{{"name": "host", "hostPath": m{"path": "/"}}},
		},
	}
}

func (k *kubectl) exec(ctx context.Context, c container, out, stderr io.Writer, program ...string) error {
	args := append([]string{"exec"}, k.flags...)
	args = append(args, "-i", "-n", c.namespace, c.pod, "-c", c.name, "--")
	cmd := exec.CommandContext(ctx, k.program, append(args, program...)...)
	cmd.Stdout, cmd.Stderr = out, stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	// A signal to kubectl would leave the program on the node running, and cut its output short: the end of its input tells it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = stdin.Close
	cmd.WaitDelay = endGrace
	err = cmd.Run()
	if errors.Is(err, context.Canceled) {
		return nil // ctrl-C is how it ends
	}
	return explain(err)
}
