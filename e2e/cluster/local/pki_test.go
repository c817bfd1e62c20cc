// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

func TestCertificatesAreGoodForWhatTheyAreIssuedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := newAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.server("server", []string{"kubernetes"}, net.IPv4(192, 0, 2, 1)); err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := ca.client("someone", "someone", "some:group", "https://192.0.2.1:6443", kubeconfig); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(config.CAData) {
		t.Fatal("the kubeconfig has no authority")
	}

	server, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubernetes", "192.0.2.1"} {
		if _, err := server.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("server at %s: %v", name, err)
		}
	}
	client, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := client.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: usage}); err != nil {
		t.Errorf("client: %v", err)
	}
	if got := client.Leaf.Subject; got.CommonName != "someone" || len(got.Organization) != 1 || got.Organization[0] != "some:group" {
		t.Errorf("client: got subject %s", got)
	}
	if _, err := server.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: usage}); err == nil {
		t.Error("the server's certificate is good for a client")
	}
}
