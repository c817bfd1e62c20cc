// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// elementKeys are the keys of an element (NPWG v1.3 §4.1.2), with those of the objects in it.
func elementKeys() map[string][]string {
	return map[string][]string{
		"name": nil, "namespace": nil, "interface": nil, "interfaceRequest": nil, "mac": nil, "ips": nil, "infiniband-guid": nil,
		"bandwidth":    {"ingressRate", "ingressBurst", "egressRate", "egressBurst"},
		"portMappings": {"hostPort", "containerPort", "protocol", "hostIP"},
		"cni-args":     nil, "default-route": nil, "deviceID": nil, "ipam-claim-reference": nil,
	}
}

// member is a key of a JSON object, with its value.
type member struct {
	key   string
	value json.RawMessage
}

// members are those of a valid JSON object, in order, each as often as it is there.
func members(object []byte) []member {
	dec := json.NewDecoder(bytes.NewReader(object))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil // null, or no object: the types of the element say what is wrong
	}
	var all []member
	for dec.More() {
		key, err := dec.Token()
		name, ok := key.(string)
		var value json.RawMessage
		if err != nil || !ok || dec.Decode(&value) != nil {
			return all
		}
		all = append(all, member{name, value})
	}
	return all
}

// checkSpelling refuses a key of an element that is known by other letters, or there twice. Decoders differ in which of two they take,
// and encoding/json in what it takes for a key: who looks at the annotation before Plexus, as an admission policy does, has to see what
// Plexus sees. Keys that are not known mean nothing to anybody, and are accepted.
func checkSpelling(element []byte) error {
	keys := elementKeys()
	all := members(element)
	if err := checkKeys(all, slices.Sorted(maps.Keys(keys)), ""); err != nil {
		return err
	}
	for _, m := range all {
		if keys[m.key] == nil {
			continue
		}
		objects := []json.RawMessage{m.value}
		if bytes.HasPrefix(m.value, []byte("[")) && json.Unmarshal(m.value, &objects) != nil {
			continue
		}
		for _, object := range objects {
			if err := checkKeys(members(object), keys[m.key], m.key+"."); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkKeys(all []member, known []string, prefix string) error {
	seen := map[string]bool{}
	for _, m := range all {
		if slices.Contains(known, m.key) {
			if seen[m.key] {
				return fmt.Errorf("%s%s is there twice: keep one", prefix, m.key)
			}
			seen[m.key] = true
			continue
		}
		for _, k := range known {
			if strings.EqualFold(m.key, k) { // as encoding/json compares
				return fmt.Errorf("key %s is %q in other letters: write %q", quoted(prefix+m.key), k, k)
			}
		}
	}
	return nil
}

const (
	// maxNotices bounds how much one pod is told about.
	maxNotices = 8
	// maxTypos is how many letters an annotation's key may be away from one that is meant: "k8s.cni.cncf.io/networks" lacks three.
	maxTypos = 3
)

// Notices tell what a pod's author wrote and nobody heard: keys of elements that mean nothing, and annotations whose keys are almost
// those of NPWG v1.3, each with the key that seems to be meant. Such pods are accepted, as the standard says; there are at most 8
// notices. It is of no use for what ParseNetworks refuses.
func Notices(pod map[string]string) []string {
	var notices []string
	for _, key := range slices.Sorted(maps.Keys(pod)) {
		if meant := MeantKey(key); meant != "" {
			notices = append(notices, fmt.Sprintf("annotation %s means nothing to Plexus: did you mean %s?", quoted(key), meant))
		}
	}
	for _, key := range []string{DefaultNetworkKey, NetworksKey} {
		var items []json.RawMessage
		if len(pod[key]) > MaxNetworksBytes || json.Unmarshal([]byte(pod[key]), &items) != nil {
			continue // the short form has no keys
		}
		known := elementKeys()
		for i, item := range items {
			for _, m := range members(item) {
				if _, ok := known[m.key]; ok || len(notices) == maxNotices {
					continue
				}
				notices = append(notices, fmt.Sprintf("annotation %s, %s: key %s means nothing to Plexus%s", key, position(i, ""), quoted(m.key), didYouMean(m.key)))
			}
		}
	}
	return notices[:min(len(notices), maxNotices)]
}

// didYouMean is the rest of a notice about a key of an element; "" where nothing like it is known.
func didYouMean(key string) string {
	folded := strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(key))
	keys := slices.Sorted(maps.Keys(elementKeys()))
	slices.SortStableFunc(keys, func(a, b string) int { return len(a) - len(b) }) // of two that are as near, the shorter
	const most = 2
	best, least := "", most+1
	for _, known := range keys {
		k := strings.ToLower(strings.ReplaceAll(known, "-", ""))
		n := typos(folded, k, most)
		if strings.HasPrefix(folded, k) && len(k) > 2 || strings.HasPrefix(k, folded) && len(folded) > 1 {
			n = min(n, 1) // interfaceName, macAddress, ip
		}
		if known != "interfaceRequest" && n < least && n < len(folded) {
			best, least = known, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

// MeantKey is the annotation of a pod that a key is a few letters away from, "" for none. Keys that mean something are not away from any.
func MeantKey(key string) string {
	if key == "" || !strings.ContainsRune("kKvV", rune(key[0])) {
		return "" // most keys of most pods; a first letter is seldom the wrong one
	}
	switch key {
	case NetworksKey, DefaultNetworkKey, NetworkStatusKey, LegacyNetworkStatusKey:
		return ""
	}
	return Nearest(key, []string{NetworksKey, DefaultNetworkKey}, maxTypos)
}

// Nearest is the candidate that a word is the fewest letters away from, in any case, "" if all are more than most away. Of two that are as
// near it is the first.
func Nearest(word string, candidates []string, most int) string {
	best, least := "", most+1
	for _, c := range candidates {
		if n := typos(strings.ToLower(word), strings.ToLower(c), least-1); n < least {
			best, least = c, n
		}
	}
	return best
}

// NoticedKeys are annotations of a pod that are told about although their values mean nothing to Plexus, at most 8: those that [MeantKey]
// knows, and a network status that was there before Plexus wrote one.
func NoticedKeys(pod map[string]string) []string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(pod)) {
		if key == NetworkStatusKey || key == LegacyNetworkStatusKey || len(keys) < maxNotices && MeantKey(key) != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

// typos is how many bytes have to be put in, left out or changed to make b of a (Levenshtein distance); more than most if that are too many,
// and for words that are longer than any that is known.
func typos(a, b string, most int) int {
	const longest = 100
	if len(a)-len(b) > most || len(b)-len(a) > most || len(a) > longest {
		return most + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
