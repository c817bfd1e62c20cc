// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package install

import "github.com/plexus-cni/plexus/nad"

// Find returns the path and the network of the file that [Conf.Write] would take for the cluster's own network configuration. The
// error is an [ErrNoPrimary].
func (c Conf) Find() (string, *nad.List, error) {
	p, _, err := c.findPrimary()
	if err != nil {
		return "", nil, err
	}
	return p.path, p.list, nil
}
