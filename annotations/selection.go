// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// ErrInvalid is what every error of a selection matches. The text around it says which element, field and value is wrong and how to
// mend it; the caller adds the pod and the annotation.
var ErrInvalid = errors.New("invalid network selection")

// ParseNetworks reads the networks annotation (NPWG v1.3 §4.1) of a pod in podNamespace, in its short or its JSON form. The elements
// come in order and in canonical form, fit for each other: no two ask for the same interface, or for the same default route. "" and
// "[]" select nothing. Errors match ErrInvalid.
func ParseNetworks(value, podNamespace string) ([]Element, error) {
	if value == "" {
		return nil, nil
	}
	requests, err := split(value)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var elements []Element
	for i, r := range requests {
		e, err := r.element(podNamespace)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, position(i, r.Name), err)
		}
		elements = append(elements, e)
	}
	if err := checkTogether(elements); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return elements, nil
}

// ParseDefaultNetwork reads the annotation that replaces a pod's default network: exactly one element, in defaultNamespace if it
// names none. "" replaces nothing and gives nil. Errors match ErrInvalid.
func ParseDefaultNetwork(value, defaultNamespace string) (*Element, error) {
	if value == "" {
		return nil, nil //nolint:nilnil // an absent annotation is an answer, not a failure
	}
	elements, err := ParseNetworks(value, defaultNamespace)
	if err != nil {
		return nil, err
	}
	if len(elements) != 1 {
		return nil, fmt.Errorf("%w: %s has %d elements: give exactly one, or remove the annotation", ErrInvalid, quoted(value), len(elements))
	}
	return &elements[0], nil
}

// FormatNetworks writes elements in the JSON form. ParseNetworks reads canonical elements back as they were.
func FormatNetworks(elements []Element) (string, error) {
	if len(elements) == 0 {
		return "[]", nil
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // cni-args stay as they were written
	if err := enc.Encode(elements); err != nil {
		return "", fmt.Errorf("format networks: %w", err)
	}
	return strings.TrimSuffix(text.String(), "\n"), nil
}

// request is an element as the annotation has it, not yet checked.
type request struct {
	Element
	// InterfaceRequest is the deprecated name of interface.
	InterfaceRequest string `json:"interfaceRequest"`
	// DefaultRoute hides the element's: an address that is none has to be told with its field.
	DefaultRoute []string `json:"default-route"`
}

func (r request) element(namespace string) (Element, error) {
	e := r.Element
	if alias := r.InterfaceRequest; alias != "" {
		if e.Interface != "" && e.Interface != alias {
			return Element{}, fieldError("interface", e.Interface, `and its deprecated alias "interfaceRequest" %s differ: keep "interface" only`, quoted(alias))
		}
		e.Interface = alias
	}
	routes, err := gateways(r.DefaultRoute)
	if err != nil {
		return Element{}, err
	}
	e.DefaultRoute = routes
	return e.validated(namespace)
}

// split reads either form down to its elements.
func split(value string) ([]request, error) {
	switch {
	case len(value) > MaxNetworksBytes:
		return nil, fmt.Errorf("it has %d bytes: shorten it to %d", len(value), MaxNetworksBytes)
	case !utf8.ValidString(value):
		return nil, fmt.Errorf("%s is not UTF-8: write it in UTF-8", quoted(value))
	case strings.ContainsAny(value, `[{"`):
		return splitJSON(value)
	}
	return splitShort(value)
}

// splitShort reads the short form: [namespace/]name[@interface], separated by commas.
func splitShort(value string) ([]request, error) {
	switch strings.TrimSpace(value) {
	case "":
		return nil, errors.New("it is blank: name a network or remove the annotation")
	case "null":
		return nil, errors.New(`it is null: name a network or remove the annotation (for a network of the name "null", write [{"name":"null"}])`)
	}
	if n := strings.Count(value, ",") + 1; n > MaxElements {
		return nil, tooMany(n)
	}
	var requests []request
	for item := range strings.SplitSeq(value, ",") {
		item = strings.TrimSpace(item)
		r, err := parseItem(item)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", position(len(requests), item), err)
		}
		requests = append(requests, r)
	}
	return requests, nil
}

func parseItem(item string) (request, error) {
	if item == "" {
		return request{}, errors.New("it is empty: remove the surplus comma")
	}
	ref, ifName, hasInterface := strings.Cut(item, "@")
	namespace, name, hasNamespace := strings.Cut(ref, "/")
	if !hasNamespace {
		namespace, name = "", ref
	}
	switch {
	case strings.Contains(ifName, "@"):
		return request{}, errors.New(`it has more than one "@": write [namespace/]name[@interface]`)
	case strings.Contains(name, "/"):
		return request{}, errors.New(`it has more than one "/": write [namespace/]name[@interface]`)
	case hasNamespace && namespace == "":
		return request{}, errors.New(`it has no namespace before "/": write [namespace/]name[@interface]`)
	case hasInterface && ifName == "":
		return request{}, errors.New(`it has no interface name after "@": write [namespace/]name[@interface]`)
	}
	return request{Element: Element{Namespace: namespace, Name: name, Interface: ifName}}, nil
}

// splitJSON reads the JSON form: an array of objects.
func splitJSON(value string) ([]request, error) {
	if !strings.HasPrefix(strings.TrimSpace(value), "[") {
		return nil, fmt.Errorf(`%s is no JSON array: write [{"name":"..."}], or a list like a,b without "[", "{" and quotes`, quoted(value))
	}
	var items []json.RawMessage
	if err := json.Unmarshal([]byte(value), &items); err != nil {
		return nil, fmt.Errorf(`%w: correct it to an array like [{"name":"..."}]`, jsonError(err))
	}
	if len(items) > MaxElements {
		return nil, tooMany(len(items))
	}
	var requests []request
	for i, item := range items {
		if item[0] != '{' {
			return nil, fmt.Errorf(`%s: %s is no object: write {"name":"..."}`, position(i, ""), quoted(string(item)))
		}
		var r request
		if err := json.Unmarshal(item, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", position(i, r.Name), jsonError(err))
		}
		if err := checkSpelling(item); err != nil {
			return nil, fmt.Errorf("%s: %w", position(i, r.Name), err)
		}
		requests = append(requests, r)
	}
	return requests, nil
}

// jsonError words an error of encoding/json in terms of the text instead of our types, and bounded in length.
func jsonError(err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("no valid JSON at byte %d: %w", syntax.Offset, syntax)
	}
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return err
	}
	var want string
	switch wrong.Type.Kind() {
	case reflect.String:
		want = "a string"
	case reflect.Slice:
		want = "an array"
	case reflect.Bool:
		want = "true or false"
	case reflect.Int, reflect.Int64:
		want = "a whole number, without quotes"
	default:
		want = "an object"
	}
	field := cmp.Or(strings.TrimPrefix(wrong.Field, "Element."), "its JSON")
	return fmt.Errorf("%s is of the wrong type (%s): write %s", field, wrong.Value[:min(len(wrong.Value), maxQuotedBytes)], want)
}

// checkTogether refuses elements that are fine alone and cannot both be had.
func checkTogether(elements []Element) error {
	interfaces, routes := map[string]string{}, map[string]string{}
	for i, e := range elements {
		here := position(i, e.Name)
		if other, taken := interfaces[e.Interface]; taken && e.Interface != "" {
			return fmt.Errorf("%s: %w", here, fieldError("interface", e.Interface, "is that of %s too: give each its own", other))
		}
		interfaces[e.Interface] = here
		for _, family := range e.RouteFamilies() {
			if other, taken := routes[family]; taken {
				return fmt.Errorf("%s: default-route claims the %s default route, as %s does, and ECMP is not supported: leave it to one of them", here, family, other)
			}
			routes[family] = here
		}
	}
	return nil
}

func tooMany(n int) error {
	return fmt.Errorf("it has %d elements: select at most %d networks", n, MaxElements)
}

// position says which element is meant: its place, counted from 1, and its name if it is known.
func position(i int, name string) string {
	if name == "" {
		return fmt.Sprintf("element %d", i+1)
	}
	return fmt.Sprintf("element %d (%s)", i+1, quoted(name))
}
