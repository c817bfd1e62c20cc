// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package nad

import (
	"fmt"
	"strings"
)

// ClaimRequest binds a network to one request of a pod's ResourceClaim: an attachment gets a device that was allocated for it. Two
// networks can so have distinct requests of one claim, and a request that says more than a resource name can.
type ClaimRequest struct {
	// Claim is the name by which the pod knows the claim (spec.resourceClaims[].name).
	Claim string
	// Request is a request of the claim, or "request/subrequest".
	Request string
}

// IsZero reports whether a network is bound to nothing.
func (c ClaimRequest) IsZero() bool { return c == ClaimRequest{} }

// String is what ParseClaimRequest reads.
func (c ClaimRequest) String() string { return c.Claim + "/" + c.Request }

// Covers reports whether a device of claim that was allocated for request is one of c. A request with alternatives covers each
// of them.
func (c ClaimRequest) Covers(claim, request string) bool {
	return c.Claim == claim && (c.Request == request || strings.HasPrefix(request, c.Request+"/"))
}

// ParseClaimRequest parses "claim/request" or "claim/request/subrequest", all of them RFC 1123 labels. Anything else is an
// [ErrInvalid].
func ParseClaimRequest(s string) (ClaimRequest, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return ClaimRequest{}, fmt.Errorf("claim request %s: %w", quote(s), invalidf(
			`write "claim/request": the name of a claim in the pod's spec.resourceClaims, and of a request of that claim`))
	}
	for _, part := range parts {
		if !IsLabel(part) {
			return ClaimRequest{}, fmt.Errorf("claim request %s: %w", quote(s), invalidf(
				"%s is no RFC 1123 label: use 1 to %d of a-z, 0-9 and \"-\", with a letter or digit at both ends", quote(part), maxLabelBytes))
		}
	}
	return ClaimRequest{Claim: parts[0], Request: strings.Join(parts[1:], "/")}, nil
}
