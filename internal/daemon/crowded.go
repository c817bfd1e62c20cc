// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net"
	"slices"
	"sync"
)

// crowded is a listener with at most some connections open. Who comes on top takes the place of the one that has been open for longest:
// connections that are held open keep no probe out, and take no memory to speak of.
type crowded struct {
	net.Listener

	most int

	mu   sync.Mutex
	open []*guest // the oldest first
}

func (c *crowded) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: conn}
	g.leave = sync.OnceFunc(func() { c.forget(g) })
	if oldest := c.admit(g); oldest != nil {
		_ = oldest.Close() // it is of no use any more
	}
	return g, nil
}

// admit returns who has to go for it, nil if nobody has.
func (c *crowded) admit(g *guest) *guest {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = append(c.open, g)
	if len(c.open) > c.most {
		return c.open[0]
	}
	return nil
}

func (c *crowded) forget(g *guest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = slices.DeleteFunc(c.open, func(other *guest) bool { return other == g })
}

// guest is a connection of a crowded listener.
type guest struct {
	net.Conn

	leave func()
}

func (g *guest) Close() error {
	g.leave()
	return g.Conn.Close()
}
