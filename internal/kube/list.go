// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// listTrimmed lists objects and keeps of each what trim leaves of it. The response is decoded object by object as it arrives, so that
// one object is in memory whole, not all of them: an API server without streaming lists (before Kubernetes 1.34 they are off, or only
// beta) answers a list from its watch cache without pages, however long it is.
func listTrimmed[T any](ctx context.Context, r *rest.Request, trim func(*T)) ([]T, metav1.ListMeta, error) {
	body, err := r.Stream(ctx)
	if err != nil {
		return nil, metav1.ListMeta{}, err
	}
	defer body.Close()
	items, meta, err := decodeList(body, trim)
	if err != nil {
		return nil, meta, fmt.Errorf("list from the API server: %w", err)
	}
	return items, meta, nil
}

// decodeList decodes a list of the Kubernetes API. Its keys come in any order.
func decodeList[T any](body io.Reader, trim func(*T)) ([]T, metav1.ListMeta, error) {
	var items []T
	var meta metav1.ListMeta
	d := json.NewDecoder(body)
	err := decodeObject(d, func(key string) error {
		switch key {
		case "metadata":
			return d.Decode(&meta)
		case "items":
			return decodeArray(d, func() error {
				var item T
				if err := d.Decode(&item); err != nil {
					return err
				}
				trim(&item)
				items = append(items, item)
				return nil
			})
		}
		return d.Decode(&json.RawMessage{})
	})
	return items, meta, err
}

// decodeObject calls value for each key of an object, to decode its value.
func decodeObject(d *json.Decoder, value func(key string) error) error {
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return unexpected("an object", t, err)
	}
	for d.More() {
		t, err := d.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return unexpected("a key", t, err)
		}
		if err := value(key); err != nil {
			return fmt.Errorf("%.64q: %w", key, err)
		}
	}
	_, err := d.Token()
	return err
}

// decodeArray calls value for each element of an array, to decode it. Null has none.
func decodeArray(d *json.Decoder, value func() error) error {
	t, err := d.Token()
	if err == nil && t == nil {
		return nil
	}
	if err != nil || t != json.Delim('[') {
		return unexpected("an array", t, err)
	}
	for d.More() {
		if err = value(); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

func unexpected(want string, got json.Token, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%v where %s is expected", got, want)
}
