// Package assay is a client of attested inference appliances: an http.RoundTripper whose requests only the
// attested guest can open (docs/sealed.md), with signed receipts checked natively (docs/receipts.md). It needs
// the standard library alone. Evidence is judged by the one verifier, assay-verify, as a child process.
package assay

import "fmt"

// Error is a refusal with its code (docs/codes.md), the same in every language.
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func refuse(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func malformed(what string) *Error { return refuse("sealed_malformed", "%s", what) }

func truncated() *Error { return refuse("sealed_truncated", "the message ends before its final chunk") }

func altered() *Error { return refuse("sealed_altered", "a chunk does not open") }
