// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
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

// kube is what is asked of the cluster.
type kube interface {
	// with is the same for another context and kubeconfig; "" stands for kubectl's own choice.
	with(kubeContext, kubeconfig string) kube
	pod(ctx context.Context, namespace, name string) (pod, error)
	// daemons finds plexusd, on one node or on all.
	daemons(ctx context.Context, namespace, node string) ([]daemon, error)
	// places are where plexusd should run, by its DaemonSet: one node, or all. They have no pod.
	places(ctx context.Context, namespace, node string) ([]daemon, error)
	// privileged makes a pod beside a daemon that can do everything on the node, and returns what deletes it.
	privileged(ctx context.Context, namespace string, beside daemon, deadline time.Duration) (container, func(), error)
	// exec runs a program in a container, and tells it by the end of its input when ctx is done.
	exec(ctx context.Context, c container, out io.Writer, program ...string) error
}

// pod is a pod that is asked about.
type pod struct{ namespace, name, node string }

func (p pod) ref() string { return p.namespace + "/" + p.name }

// daemon is a plexusd, or where one should be.
type daemon struct{ name, node, container, image string }

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

// object is what is needed of a pod's JSON.
type object struct {
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Spec struct {
		NodeName   string `json:"nodeName"`
		Containers []struct {
			Name  string `json:"name"`
			Image string `json:"image"`
		} `json:"containers"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

func (k *kubectl) pod(ctx context.Context, namespace, name string) (pod, error) {
	args := []string{"get", "pod", "-o", "json"}
	if ns, rest, ok := strings.Cut(name, "/"); ok {
		namespace, name = ns, rest
	}
	if namespace != "" {
		args = append(args, "-n", namespace)
	}
	var o object
	if err := k.get(ctx, &o, append(args, "--", name)...); err != nil {
		return pod{}, err
	}
	return pod{namespace: o.Metadata.Namespace, name: o.Metadata.Name, node: o.Spec.NodeName}, nil
}

func (k *kubectl) daemons(ctx context.Context, namespace, node string) ([]daemon, error) {
	args := []string{"get", "pods", "-n", namespace, "-l", "app.kubernetes.io/name=plexus", "-o", "json"}
	if node != "" {
		args = append(args, "--field-selector", "spec.nodeName="+node)
	}
	var list struct {
		Items []object `json:"items"`
	}
	if err := k.get(ctx, &list, args...); err != nil {
		return nil, err
	}
	var found []daemon
	for _, o := range list.Items {
		if o.Status.Phase == "Running" && len(o.Spec.Containers) > 0 {
			c := o.Spec.Containers[0]
			found = append(found, daemon{name: o.Metadata.Name, node: o.Spec.NodeName, container: c.Name, image: c.Image})
		}
	}
	return found, nil
}

func (k *kubectl) places(ctx context.Context, namespace, node string) ([]daemon, error) {
	var sets struct {
		Items []struct {
			Spec struct {
				Template object `json:"template"`
			} `json:"spec"`
		} `json:"items"`
	}
	if err := k.get(ctx, &sets, "get", "daemonsets", "-n", namespace, "-l", "app.kubernetes.io/name=plexus", "-o", "json"); err != nil {
		return nil, err
	}
	if len(sets.Items) == 0 || len(sets.Items[0].Spec.Template.Spec.Containers) == 0 {
		return nil, nil
	}
	image := sets.Items[0].Spec.Template.Spec.Containers[0].Image
	if node != "" {
		return []daemon{{node: node, image: image}}, nil
	}
	var nodes struct {
		Items []object `json:"items"`
	}
	if err := k.get(ctx, &nodes, "get", "nodes", "-o", "json"); err != nil {
		return nil, err
	}
	var found []daemon
	for _, n := range nodes.Items {
		found = append(found, daemon{node: n.Metadata.Name, image: image})
	}
	return found, nil
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

// explain says how to mend that there is no kubectl.
func explain(err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install kubectl, or add its folder to PATH", err)
	}
	return err
}

func (k *kubectl) privileged(ctx context.Context, namespace string, beside daemon, deadline time.Duration) (container, func(), error) {
	manifest, err := json.Marshal(privilegedPod(namespace, beside, deadline))
	if err != nil {
		return container{}, nil, err
	}
	out, err := k.output(ctx, manifest, "create", "-n", namespace, "-o", "name", "-f", "-")
	if err != nil {
		return container{}, nil, err
	}
	name := strings.TrimSpace(strings.TrimPrefix(string(out), "pod/"))
	_, _ = fmt.Fprintf(k.stderr, "privileged pod %s/%s on node %s: made, and deleted at the end\n", namespace, name, beside.node)
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

// privilegedPod is a pod that sees the node's file system, processes and network as root does. It runs the daemon's image, which is there,
// and asks for nothing of the cluster.
func privilegedPod(namespace string, beside daemon, deadline time.Duration) map[string]any {
	type m = map[string]any
	return m{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": m{"generateName": "plexusctl-", "namespace": namespace, "labels": m{"app.kubernetes.io/name": "plexusctl"}},
		"spec": m{
			"nodeName": beside.node, "restartPolicy": "Never", "activeDeadlineSeconds": int(deadline.Seconds()), "terminationGracePeriodSeconds": 1,
			// No pod network is needed to look at one that is broken.
			"hostNetwork": true, "hostPID": true,
			"automountServiceAccountToken": false, "enableServiceLinks": false,
			"tolerations": []m{{"operator": "Exists"}},
			"containers": []m{{
				"name": programContainer, "image": beside.image, "imagePullPolicy": "IfNotPresent", "command": []string{program, "hold"},
				"securityContext": m{"privileged": true, "runAsUser": 0},
				"volumeMounts":    []m{{"name": "host", "mountPath": hostRoot}},
			}},
			"volumes": []m{{"name": "host", "hostPath": m{"path": "/"}}},
		},
	}
}

func (k *kubectl) exec(ctx context.Context, c container, out io.Writer, program ...string) error {
	args := append([]string{"exec"}, k.flags...)
	args = append(args, "-i", "-n", c.namespace, c.pod, "-c", c.name, "--")
	cmd := exec.CommandContext(ctx, k.program, append(args, program...)...)
	cmd.Stdout, cmd.Stderr = out, k.stderr
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
