// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plexus-cni/plexus/annotations"
	"github.com/plexus-cni/plexus/delegate"
	"github.com/plexus-cni/plexus/internal/config"
	"github.com/plexus-cni/plexus/internal/finding"
	"github.com/plexus-cni/plexus/internal/lint"
	"github.com/plexus-cni/plexus/internal/pod"
	"github.com/plexus-cni/plexus/internal/source"
	"github.com/plexus-cni/plexus/nad"
)

// Counts say how much was examined.
type Counts struct {
	Networks        int `json:"networks"`
	NetworksRefused int `json:"networksRefused"`
	Pods            int `json:"pods"`
	// PodsWithRequests select networks; PodsRefused are those of them, or of all, that would not start.
	PodsWithRequests int `json:"podsWithRequests"`
	PodsRefused      int `json:"podsRefused"`
	// PodsSkipped have the node's network or have ended.
	PodsSkipped int `json:"podsSkipped"`
}

// examiner asks the code that decides on an ADD, pod by pod.
type examiner struct {
	cfg  *config.Config
	root string
	o    *Objects
	// first is the default network, a stand-in if it is not known here.
	first delegate.Network
	// missing are networks that are unusable themselves, which is told once.
	broken map[string]bool

	findings []finding.Finding
	counts   Counts
	// about counts the pods of a controller that one finding is about.
	about map[finding.Finding]int
}

// Examine reports what Plexus refuses of pods and networks with the configuration of tr; nothing if that has none. Pods of one controller
// are told of once.
func Examine(tr *Translation, root string, o *Objects) ([]finding.Finding, Counts) {
	if tr.Config == nil {
		return o.findings, Counts{}
	}
	e := &examiner{cfg: tr.Config, root: root, o: o, broken: map[string]bool{}, about: map[finding.Finding]int{}, findings: slices.Clone(o.findings)}
	e.first = delegate.Network{Name: "default network", List: tr.Network}
	if e.first.List == nil {
		e.first.List = standIn("default-network", nil)
	}
	for _, ref := range o.refs {
		e.network(o.definitions[ref])
	}
	e.configured()
	for i := range o.pods {
		e.pod(&o.pods[i])
	}
	for i, f := range e.findings {
		if n := e.about[f]; n > 1 {
			e.findings[i].Object = fmt.Sprintf("%s (%d pods)", f.Object, n)
		}
	}
	return e.findings, e.counts
}

// standIn is a network of which nothing is known but that it is there.
func standIn(name string, capabilities map[string]bool) *nad.List {
	conf := map[string]any{"cniVersion": "1.0.0", "name": name, "type": "unknown", "capabilities": capabilities}
	list, err := nad.Normalize(encode(conf), nad.Defaults{})
	if err != nil {
		// Only the name is not ours.
		return standIn("unnamed", capabilities)
	}
	return list
}

func (e *examiner) defaults(name string) nad.Defaults {
	return nad.Defaults{Name: name, CNIVersion: e.cfg.CNIVersion}
}

// network checks one NetworkAttachmentDefinition on its own.
func (e *examiner) network(d *nad.Definition) {
	e.counts.Networks++
	object := "network " + d.Ref.String()
	refuse := func(field string, err error) {
		e.counts.NetworksRefused++
		e.broken[d.Ref.String()] = true
		text, mend := splitMend(err.Error())
		e.findings = append(e.findings, finding.Finding{Code: NetworkInvalid, Severity: finding.Error, Object: object, Field: field, Text: text, Mend: mend})
	}
	if d.ClaimRequest != "" {
		if _, err := nad.ParseClaimRequest(d.ClaimRequest); err != nil {
			refuse("annotation "+annotations.ClaimRequestKey, err)
			return
		}
	}
	if blank(d.Config) {
		if _, _, err := nad.FindFile(rooted(e.root, e.cfg.ConfDir), d.Ref.Name, e.defaults(d.Ref.Name)); err != nil {
			text, _ := splitMend(err.Error()) // its mend leaves out spec.config
			// Another node may have the file.
			e.findings = append(e.findings, finding.Finding{
				Code: NetworkMissing, Severity: finding.Warning, Object: object, Field: "spec.config",
				Text: fmt.Sprintf("it is empty, and no configuration with this name can be used in %s here: %s", e.cfg.ConfDir, text),
				Mend: "put the file there on all nodes, or write the configuration into spec.config",
			})
		}
		return
	}
	list, err := nad.Normalize([]byte(d.Config), e.defaults(d.Ref.Name))
	switch {
	case err != nil:
		refuse("spec.config", err)
	case isMeta(list):
		refuse("spec.config", fmt.Errorf("it is of the meta-plugin %s, which is not a network: write the configuration of the network itself", strings.Join(list.Types(), ", ")))
	default:
		e.lint(d)
	}
	if n := len(d.Config); n > MaxConfigBytes {
		e.findings = append(e.findings, finding.Finding{
			Code: ConfigTooLong, Severity: finding.Error, Object: object, Field: "spec.config",
			Text: fmt.Sprintf("it has %d bytes, and the CustomResourceDefinition of Plexus allows %d", n, MaxConfigBytes),
			Mend: "shorten it, or keep your own CustomResourceDefinition and give plexusd more memory",
		})
	}
}

// lint adds what `plexusctl nad lint` finds in a network that is accepted. What the built-in plugin sriov refuses is refused where sriov-cni took it; other
// plugins are the same programs as before, so that what they refuse has never worked.
func (e *examiner) lint(d *nad.Definition) {
	for _, f := range lint.Check([]nad.Definition{*d}, lint.Options{}) {
		switch {
		case !f.Severity.AtLeast(finding.Warning), f.Code == lint.PluginUnknown, f.Code == lint.RouteDefault:
			continue // neither is a matter of migration
		case f.Code == lint.SRIOVConfig:
			if !e.broken[d.Ref.String()] {
				e.counts.NetworksRefused++
			}
			e.broken[d.Ref.String()] = true
		case f.Severity == finding.Error:
			f.Severity = finding.Warning
		}
		f.Object, f.Field = "network "+d.Ref.String(), strings.TrimSuffix("spec.config, "+f.Field, ", ")
		if strings.HasSuffix(f.Field, "annotations") {
			f.Field = strings.TrimPrefix(f.Field, "spec.config, ")
		}
		e.findings = append(e.findings, f)
	}
}

// configured checks the networks that the configuration names.
func (e *examiner) configured() {
	names := map[string][]string{"defaultNetworks": e.cfg.DefaultNetworks}
	if e.cfg.ClusterNetwork != "" && !e.cfg.ClusterNetworkIsPath() {
		names["clusterNetwork"] = []string{e.cfg.ClusterNetwork}
	}
	for _, key := range slices.Sorted(maps.Keys(names)) {
		for _, name := range names[key] {
			if strings.Contains(name, "/") {
				continue
			}
			ref, err := nad.ParseRef(name, e.cfg.NetworksNamespace)
			if err == nil && e.o.definitions[ref] != nil {
				continue
			}
			if _, _, err := nad.FindFile(rooted(e.root, e.cfg.ConfDir), name, e.defaults(name)); err == nil {
				continue
			}
			e.findings = append(e.findings, finding.Finding{
				Code: NetworkMissing, Severity: finding.Error, Object: "configuration", Field: key,
				Text: fmt.Sprintf("%q: there is neither a NetworkAttachmentDefinition of that name in namespace %s nor a configuration in %s here", clip(name), e.cfg.NetworksNamespace, e.cfg.ConfDir),
				Mend: "create it, or correct the name",
			})
		}
	}
}

// pod checks one pod: first each request on its own, so that all are told, then all together.
func (e *examiner) pod(p *podObject) {
	e.counts.Pods++
	if !p.attaches() {
		e.counts.PodsSkipped++
		return
	}
	networks, byDefault := p.Metadata.Annotations[annotations.NetworksKey], p.Metadata.Annotations[annotations.DefaultNetworkKey]
	if slices.ContainsFunc(p.Spec.Containers, func(c container) bool { return strings.Contains(c.Image, hotPlugController) }) {
		e.tell(p, finding.Finding{
			Code: HotPlugUnsupported, Severity: finding.Warning,
			Text: "it attaches networks to running pods through the socket of Multus' daemon, which Plexus does not have: a pod gets its networks when it starts",
			Mend: "remove it, and restart pods whose networks change; KubeVirt machines must be restarted or migrated to get a new interface",
		})
	}
	if networks == "" && byDefault == "" {
		for _, notice := range annotations.Notices(p.Metadata.Annotations) {
			e.tell(p, finding.Finding{Code: AnnotationUnknown, Severity: finding.Warning, Text: notice})
		}
		return // what the configuration names is checked already
	}
	e.counts.PodsWithRequests++
	refused := false
	refuse := func(field string, err error) {
		refused = true
		e.refuse(p, field, err)
	}
	for _, notice := range annotations.Notices(p.Metadata.Annotations) {
		e.tell(p, finding.Finding{Code: AnnotationUnknown, Severity: finding.Warning, Text: notice})
	}
	namespace := p.source().Ref.Namespace
	first, err := annotations.ParseDefaultNetwork(byDefault, e.cfg.NetworksNamespace)
	if err != nil {
		refuse("annotation "+annotations.DefaultNetworkKey, err)
	}
	elements, err := annotations.ParseNetworks(networks, namespace)
	if err != nil {
		refuse("annotation "+annotations.NetworksKey, err)
	}
	if first != nil {
		e.element(p, annotations.DefaultNetworkKey, 0, *first, refuse)
	}
	for i, el := range elements {
		e.element(p, annotations.NetworksKey, i+1, el, refuse)
	}
	if !refused {
		if err := e.plan(p.source(annotations.NetworksKey, annotations.DefaultNetworkKey), p.devices); err != nil {
			refuse("", err)
		}
	}
	if refused {
		e.counts.PodsRefused++
	}
}

// element checks one element, without its requests and then with each of them.
func (e *examiner) element(p *podObject, annotation string, position int, el annotations.Element, refuse func(string, error)) {
	where := "annotation " + annotation
	if position > 0 {
		where = fmt.Sprintf("%s, element %d", where, position)
	}
	if e.broken[el.Namespace+"/"+el.Name] {
		refuse(where, errOf(el))
		return
	}
	try := func(el annotations.Element) error {
		text, err := annotations.FormatNetworks([]annotations.Element{el})
		if err != nil {
			return err
		}
		alone := p.source()
		alone.Annotations[annotation] = text
		return e.plan(alone, plenty)
	}
	bare := el
	bare.MAC, bare.IPs, bare.Bandwidth, bare.PortMappings, bare.InfinibandGUID = "", nil, nil, nil, ""
	if err := try(bare); err != nil {
		refuse(where, err)
		return
	}
	for _, r := range []struct {
		field string
		asked bool
		put   func(to *annotations.Element)
	}{
		{"mac", el.MAC != "", func(to *annotations.Element) { to.MAC = el.MAC }},
		{"ips", len(el.IPs) > 0, func(to *annotations.Element) { to.IPs = el.IPs }},
		{"bandwidth", el.Bandwidth != nil, func(to *annotations.Element) { to.Bandwidth = el.Bandwidth }},
		{"portMappings", len(el.PortMappings) > 0, func(to *annotations.Element) { to.PortMappings = el.PortMappings }},
		{"infiniband-guid", el.InfinibandGUID != "", func(to *annotations.Element) { to.InfinibandGUID = el.InfinibandGUID }},
	} {
		if !r.asked {
			continue
		}
		with := bare
		r.put(&with)
		if err := try(with); err != nil {
			refuse(where+", "+r.field, err)
		}
	}
}

// errBroken marks a network that is told of on its own.
var errBroken = errors.New("network that Plexus refuses")

func errOf(el annotations.Element) error {
	return fmt.Errorf("it selects %s, a %w: fix that network", el, errBroken)
}

// plenty gives every network its device: whether the pod has it is a question for all of its networks together.
func plenty(_ source.Pod, needs []source.Need) ([]pod.Device, error) {
	var given []pod.Device
	for i, n := range needs {
		d := pod.Device{ID: fmt.Sprintf("any-%d", i), Resource: n.Resource}
		if !n.Claim.IsZero() {
			d.Claimed = &pod.ClaimedDevice{PodClaim: n.Claim.Claim, Request: n.Claim.Request, Device: d.ID}
		}
		given = append(given, d)
	}
	return given, nil
}

// plan does what an ADD does before it touches anything.
func (e *examiner) plan(p source.Pod, devices source.Devices) error {
	q := source.Query{Pod: p.Ref, NetworksNamespace: e.cfg.NetworksNamespace, Isolation: nad.Policy{Isolate: e.cfg.NamespaceIsolation}}
	if g := e.cfg.GlobalNamespaces; g != nil {
		q.Isolation.GlobalNamespaces = nad.ParseGlobalNamespaces(*g)
	}
	// What the configuration names comes before what the pod selects, and consumes devices as well.
	if !e.cfg.IsSystemNamespace(p.Ref.Namespace) {
		q.DefaultNetworks = slices.DeleteFunc(slices.Clone(e.cfg.DefaultNetworks), func(n string) bool { return strings.Contains(n, "/") })
	}
	if !e.cfg.ClusterNetworkIsPath() {
		q.ClusterNetwork = e.cfg.ClusterNetwork
	}
	selection, err := source.Select(q, p, e.o.find, devices)
	if err != nil {
		return err
	}
	networks, err := e.networks(selection, p)
	if err != nil {
		return err
	}
	_, err = delegate.NewPlan(delegate.Request{
		Config:   e.cfg.Name,
		Sandbox:  delegate.Sandbox{ContainerID: strings.Repeat("0", 64), IfName: "eth0"},
		Args:     pod.Args{Pod: p.Ref},
		Networks: networks, Rules: delegate.RulesOf(e.cfg),
		DeviceInfoDir: filepath.Join(e.root, "nowhere"),
	})
	return err
}

// networks are those of a pod in the order of attachment.
func (e *examiner) networks(s *source.Selection, p source.Pod) ([]delegate.Network, error) {
	first := e.first
	if s.Default != nil {
		if err := e.cfg.CheckReplacement(s.Default.Ref.String()); err != nil {
			return nil, err
		}
		n, err := e.resolve(s.Default)
		if err != nil {
			return nil, err
		}
		first = n
	}
	networks := []delegate.Network{first}
	for i := 1; i < len(e.cfg.Delegates); i++ {
		list, err := nad.Normalize(e.cfg.Delegates[i], e.defaults(e.cfg.Name))
		if err != nil {
			return nil, fmt.Errorf("delegates[%d]: %w", i, err)
		}
		networks = append(networks, delegate.Network{Name: list.Name(), List: list})
	}
	byName := s.DefaultNetworks
	for _, name := range e.cfg.DefaultNetworks {
		switch {
		case e.cfg.IsSystemNamespace(p.Ref.Namespace):
		case strings.Contains(name, "/"):
			networks = append(networks, delegate.Network{Name: name, List: standIn(filepath.Base(name), nil)})
		case len(byName) > 0:
			n, err := e.resolve(&byName[0])
			if err != nil {
				return nil, err
			}
			networks, byName = append(networks, n), byName[1:]
		}
	}
	for i := range s.Networks {
		n, err := e.resolve(&s.Networks[i])
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
	}
	return networks, nil
}

// resolve is the network that a reference leads to. What is in a file that is not here may be able to do anything.
func (e *examiner) resolve(n *source.Network) (delegate.Network, error) {
	out := delegate.Network{Name: n.Ref.String(), Device: n.Device, ResourceName: n.ResourceName, Claimed: n.Claimed, Element: n.Element, RefuseUnsupported: n.RefuseUnsupported, AllowedCNIArgs: n.AllowedCNIArgs}
	var err error
	if n.Missing || blank(n.Config) {
		out.List, _, err = nad.FindFile(rooted(e.root, e.cfg.ConfDir), n.Ref.Name, e.defaults(n.Ref.Name))
		if err != nil {
			out.List = standIn(n.Ref.Name, map[string]bool{"mac": true, "ips": true, "bandwidth": true, "portMappings": true, "infinibandGUID": true})
		}
		return out, nil
	}
	out.List, err = nad.Normalize([]byte(n.Config), e.defaults(n.Ref.Name))
	return out, err
}

// hotPlugController is in the image of multus-dynamic-networks-controller.
const hotPlugController = "multus-dynamic-networks-controller"

// refuse makes a finding of an error.
func (e *examiner) refuse(p *podObject, field string, err error) {
	f := finding.Finding{Severity: finding.Error, Field: field}
	f.Code = codeOf(err)
	f.Text, f.Mend = splitMend(plain(err))
	e.tell(p, f)
}

// tell adds a finding about a pod, once for all pods of a controller.
func (e *examiner) tell(p *podObject, f finding.Finding) {
	f.Object = "pod " + p.source().Ref.String()
	if owner := p.owner(); owner != "" {
		f.Object = owner
		e.about[f]++
		if e.about[f] > 1 {
			return
		}
	}
	e.findings = append(e.findings, f)
}

func codeOf(err error) string {
	for _, c := range []struct {
		is   error
		code string
	}{
		{annotations.ErrInvalid, AnnotationInvalid},
		{nad.ErrNotFound, NetworkMissing},
		{nad.ErrForbidden, NetworkIsolated},
		{source.ErrNoDevice, DeviceMissing},
		{errBroken, NetworkInvalid},
		{nad.ErrInvalid, NetworkInvalid},
	} {
		if errors.Is(err, c.is) {
			return c.code
		}
	}
	if strings.Contains(err.Error(), "declares the capability") {
		return RequestUnsupported
	}
	return PodRefused
}

// plain is an error without what the code and the field of a finding say already.
func plain(err error) string {
	text := err.Error()
	for _, key := range []string{annotations.NetworksKey, annotations.DefaultNetworkKey} {
		text = strings.TrimPrefix(text, "annotation "+key+": ")
	}
	for _, sentinel := range []error{annotations.ErrInvalid, delegate.ErrInvalid, nad.ErrNotFound, nad.ErrForbidden, source.ErrNoDevice} {
		text = strings.Replace(text, sentinel.Error()+": ", "", 1)
	}
	return text
}
