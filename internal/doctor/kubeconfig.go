// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// soon is when an expiry is worth a word: tokens of pods are renewed long before, certificates at the latest then.
	tokenSoon       = 5 * time.Minute
	certificateSoon = 7 * 24 * time.Hour
	// apiTimeout bounds the question to the API server: it is below the check's own, so that it is told what hangs.
	apiTimeout = 3 * time.Second
)

// kubeconfig is what is looked at of one.
type kubeconfig struct {
	CurrentContext string `json:"current-context"`
	Contexts       []struct {
		Name    string `json:"name"`
		Context struct {
			Cluster string `json:"cluster"`
			User    string `json:"user"`
		} `json:"context"`
	} `json:"contexts"`
	Clusters []struct {
		Name    string  `json:"name"`
		Cluster cluster `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string `json:"name"`
		User user   `json:"user"`
	} `json:"users"`
}

type cluster struct {
	Server   string `json:"server"`
	CA       []byte `json:"certificate-authority-data"`
	CAFile   string `json:"certificate-authority"`
	Insecure bool   `json:"insecure-skip-tls-verify"`
}

type user struct {
	Token           string          `json:"token"`
	TokenFile       string          `json:"tokenFile"`
	Certificate     []byte          `json:"client-certificate-data"`
	CertificateFile string          `json:"client-certificate"`
	Key             []byte          `json:"client-key-data"`
	KeyFile         string          `json:"client-key"`
	Exec            json.RawMessage `json:"exec"`
}

// access is how the API server is reached, files read.
type access struct {
	server         string
	ca             *x509.CertPool
	insecure       bool
	token          string
	hasCertificate bool
	certificate    tls.Certificate
	// exec is set when a program makes the credentials.
	exec bool
}

// checkKubeconfig looks at the credentials that Plexus uses without a daemon, and asks the API server. Those of the daemon are in its
// container, where the kubelet renews them; whether it reaches the API server it says itself.
func (d *Doctor) checkKubeconfig(ctx context.Context, n *node) ([]Finding, error) {
	if n.conf == nil || n.conf.cfg.DaemonSocketDir != "" || n.conf.cfg.Kubeconfig == "" {
		return nil, nil
	}
	path := n.conf.cfg.Kubeconfig
	object := "kubeconfig " + path
	a, err := d.loadAccess(path)
	if err != nil {
		return []Finding{newFinding(KubeconfigInvalid, object, oneLine(err.Error()), "correct it; plexusd install rewrites it")}, nil
	}
	found := a.expiries(object, d.Now())
	if slices.ContainsFunc(found, func(f Finding) bool { return f.Code == CredentialsExpired }) || a.exec {
		return found, nil // the answer is known; or the program's business
	}
	return append(found, a.ask(ctx, object)...), nil
}

func (d *Doctor) loadAccess(path string) (*access, error) {
	data, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	if data, err = d.JSON(data); err != nil {
		return nil, err
	}
	return parseKubeconfig(data, func(file string) ([]byte, error) {
		if !filepath.IsAbs(file) {
			file = filepath.Join(filepath.Dir(path), file)
		}
		return readSmall(file)
	})
}

// parseKubeconfig reads a kubeconfig in JSON, and by read the files that it names.
func parseKubeconfig(data []byte, read func(file string) ([]byte, error)) (*access, error) {
	var k kubeconfig
	if err := json.Unmarshal(data, &k); err != nil {
		return nil, err
	}
	var clusterName, userName string
	for _, c := range k.Contexts {
		if c.Name == k.CurrentContext {
			clusterName, userName = c.Context.Cluster, c.Context.User
		}
	}
	a := &access{}
	for _, c := range k.Clusters {
		if c.Name == clusterName {
			if err := a.setCluster(c.Cluster, read); err != nil {
				return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
			}
		}
	}
	if a.server == "" {
		return nil, fmt.Errorf("current-context %q leads to no cluster with a server", k.CurrentContext)
	}
	for _, u := range k.Users {
		if u.Name == userName {
			if err := a.setUser(u.User, read); err != nil {
				return nil, fmt.Errorf("user %q: %w", u.Name, err)
			}
		}
	}
	return a, nil
}

func (a *access) setCluster(c cluster, read func(string) ([]byte, error)) error {
	a.server, a.insecure = c.Server, c.Insecure
	ca, err := dataOr(c.CA, c.CAFile, read)
	if err != nil || len(ca) == 0 {
		return err
	}
	a.ca = x509.NewCertPool()
	if !a.ca.AppendCertsFromPEM(ca) {
		return errors.New("certificate-authority: no certificate in it")
	}
	return nil
}

func (a *access) setUser(u user, read func(string) ([]byte, error)) error {
	a.exec = len(u.Exec) > 0 && string(u.Exec) != "null"
	a.token = u.Token
	if u.TokenFile != "" {
		token, err := read(u.TokenFile)
		if err != nil {
			return fmt.Errorf("tokenFile: %w", err)
		}
		a.token = strings.TrimSpace(string(token))
	}
	certificate, err := dataOr(u.Certificate, u.CertificateFile, read)
	if err != nil || len(certificate) == 0 {
		return err
	}
	key, err := dataOr(u.Key, u.KeyFile, read)
	if err != nil {
		return err
	}
	a.certificate, err = tls.X509KeyPair(certificate, key)
	a.hasCertificate = err == nil
	if err != nil {
		return fmt.Errorf("client-certificate and client-key: %w", err)
	}
	return nil
}

func dataOr(data []byte, file string, read func(string) ([]byte, error)) ([]byte, error) {
	if len(data) > 0 || file == "" {
		return data, nil
	}
	return read(file)
}

// expiries tells of credentials whose time is over, or nearly.
func (a *access) expiries(object string, now time.Time) []Finding {
	const mend = "restart plexusd install, which renews it, and find out why it does not do so by itself"
	var found []Finding
	add := func(what string, at time.Time, soon time.Duration) {
		left := at.Sub(now)
		switch {
		case left <= 0:
			found = append(found, newFinding(CredentialsExpired, object, fmt.Sprintf("its %s expired on %s", what, at.UTC().Format(time.RFC3339)), mend))
		case left < soon:
			found = append(found, newFinding(CredentialsExpiring, object, fmt.Sprintf("its %s expires on %s", what, at.UTC().Format(time.RFC3339)), mend))
		}
	}
	if at, ok := tokenExpiry(a.token); ok {
		add("token", at, tokenSoon)
	}
	if a.hasCertificate {
		if leaf, err := x509.ParseCertificate(a.certificate.Certificate[0]); err == nil {
			add("client certificate", leaf.NotAfter, certificateSoon)
		}
	}
	return found
}

// tokenExpiry reads the claim exp of a JSON Web Token (RFC 7519). Other tokens tell none.
func tokenExpiry(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Expires int64 `json:"exp"` // seconds since 1970
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Expires <= 0 {
		return time.Time{}, false
	}
	return time.Unix(claims.Expires, 0), true
}

// ask asks the API server who it is: what a network in between, a wrong certificate or a token that it does not take would show.
func (a *access) ask(ctx context.Context, object string) []Finding {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	config := &tls.Config{RootCAs: a.ca, InsecureSkipVerify: a.insecure, MinVersion: tls.VersionTLS12} //nolint:gosec // the kubeconfig says so
	if a.hasCertificate {
		config.Certificates = []tls.Certificate{a.certificate}
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(a.server, "/")+"/version", http.NoBody)
	if err != nil {
		return []Finding{newFinding(KubeconfigInvalid, object, oneLine(err.Error()), "correct \"server\"")}
	}
	if a.token != "" {
		request.Header.Set("Authorization", "Bearer "+a.token)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return []Finding{newFinding(APIUnreachable, "API server "+a.server, oneLine(err.Error()), "make sure that this node reaches it: routes, firewall, \"server\" and certificate-authority in "+strings.TrimPrefix(object, "kubeconfig "))}
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxFileBytes)) // what it is does not matter
	switch {
	case response.StatusCode == http.StatusUnauthorized:
		return []Finding{newFinding(APIRefused, "API server "+a.server, "it does not accept the credentials of "+object, "let plexusd install rewrite it")}
	case response.StatusCode >= http.StatusInternalServerError:
		return []Finding{newFinding(APIUnreachable, "API server "+a.server, "it answers "+response.Status, "check the API server, and the network between it and this node")}
	}
	return nil
}

// serviceRange finds the flag of the services' addresses in the API server's manifest, which control plane nodes have.
func serviceRange(manifest []byte) string {
	const flag = "--service-cluster-ip-range="
	for line := range strings.Lines(string(manifest)) {
		if _, value, ok := strings.Cut(line, flag); ok {
			return strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return ""
}
