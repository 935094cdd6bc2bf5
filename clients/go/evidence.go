package assay

// Evidence for sealed bodies (docs/sealed.md §1), judged by the one verifier as a child process. Without an
// accepted verdict there is no key, and nothing is sealed or sent.

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"os/exec"
	"regexp"
	"sync"
	"time"
)

// Evidence is what an accepted verdict says; times are seconds since 1970 of the guest.
type Evidence struct {
	Key, ReceiptKey   []byte
	Models            map[string]string
	IssuedAt, Expires int64
}

// Judge gives evidence of an origin that was accepted. Verifier is the one to use.
type Judge interface {
	Judge(ctx context.Context, origin string) (*Evidence, error)
}

// Verifier runs `assay-verify seal ORIGIN --policy FILE --json`.
type Verifier struct {
	// Command, by default assay-verify of the PATH.
	Command []string
	// Policy is a file whose channel is sealed.
	Policy string
	// Arguments more, as --allow-simulated.
	Arguments []string
	// Timeout, by default two minutes.
	Timeout time.Duration
}

var verdictCode = regexp.MustCompile(`(?m)^\s*([a-z][a-z0-9_]{2,63})(?: \([^)]*\))?: (.*)$`)

func (v *Verifier) Judge(ctx context.Context, origin string) (*Evidence, error) {
	timeout := v.Timeout
	if timeout == 0 {
		timeout = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	argv := v.Command
	if len(argv) == 0 {
		argv = []string{"assay-verify"}
	}
	argv = append(append([]string(nil), argv...), "seal", origin, "--policy", v.Policy, "--json")
	argv = append(argv, v.Arguments...)
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		if _, exited := err.(*exec.ExitError); exited && ctx.Err() == nil {
			if found := verdictCode.FindAllStringSubmatch(stderr.String(), -1); len(found) > 0 {
				last := found[len(found)-1]
				return nil, refuse(last[1], "the verifier refused: %s", last[2])
			}
		}
		return nil, refuse("internal", "the verifier gave no verdict")
	}
	return readEvidence(stdout.Bytes())
}

func readEvidence(text []byte) (*Evidence, error) {
	var read struct {
		Key        string            `json:"key"`
		KeyID      *int              `json:"key_id"`
		ReceiptKey string            `json:"receipt_key"`
		Models     map[string]string `json:"models"`
		IssuedAt   *int64            `json:"issued_at"`
		Expires    *int64            `json:"expires"`
	}
	unreadable := refuse("internal", "the verifier printed no key that can be used")
	if json.Unmarshal(text, &read) != nil || read.KeyID == nil || read.IssuedAt == nil || read.Expires == nil {
		return nil, unreadable
	}
	key, err := hex.DecodeString(read.Key)
	if err != nil || !isUsablePoint(key) || *read.KeyID != int(keyIDOf(key)) {
		return nil, unreadable
	}
	receiptKey, err := hex.DecodeString(read.ReceiptKey)
	if err != nil || len(receiptKey) != 32 {
		return nil, unreadable
	}
	return &Evidence{key, receiptKey, read.Models, *read.IssuedAt, *read.Expires}, nil
}

var loopbackHost = regexp.MustCompile(`^(localhost|::1|127(?:\.\d{1,3}){3})$`)

func originOf(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" ||
		!(u.Scheme == "https" || u.Scheme == "http" && loopbackHost.MatchString(u.Hostname())) {
		return "", refuse("plain_http", "the address is neither https nor loopback")
	}
	return u.Scheme + "://" + u.Host, nil
}

// holder keeps the newest accepted evidence, and sealed time. Only fresh evidence says what a key is.
type holder struct {
	origin    string
	judge     Judge
	now       func() time.Time
	onRotated func(sameBoot bool)

	asking sync.Mutex
	mutex  sync.Mutex
	held   *Evidence
	// Counts the evidence that was accepted.
	generation int
	heldAt     time.Time
	stale      bool
	// Sealed time at setAt. time.Time has a monotonic reading, which differences are made of.
	seconds int64
	setAt   time.Time
}

func (h *holder) sealedSeconds() int64 {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return h.seconds + int64(h.now().Sub(h.setAt)/time.Second)
}

func (h *holder) setSeconds(seconds int64) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.seconds, h.setAt = seconds, h.now()
}

func (h *holder) spoil() {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.stale = true
}

func (h *holder) current(ctx context.Context) (*Evidence, int, error) {
	h.mutex.Lock()
	held, generation := h.held, h.generation
	fresh := held != nil && !h.stale &&
		h.now().Sub(h.heldAt) < time.Duration(held.Expires-held.IssuedAt)*time.Second
	h.mutex.Unlock()
	if fresh {
		return held, generation, nil
	}
	return h.renew(ctx, generation)
}

// renew gives evidence newer than generation seen; callers that ask at the same time share one verdict.
func (h *holder) renew(ctx context.Context, seen int) (*Evidence, int, error) {
	h.asking.Lock()
	defer h.asking.Unlock()
	h.mutex.Lock()
	if h.generation > seen {
		defer h.mutex.Unlock()
		return h.held, h.generation, nil
	}
	h.mutex.Unlock()
	asked := h.now()
	after, err := h.judge.Judge(ctx, h.origin)
	if err != nil {
		return nil, seen, err
	}
	h.mutex.Lock()
	before := h.held
	h.held, h.heldAt, h.stale = after, asked, false
	h.generation++
	h.seconds, h.setAt = after.IssuedAt, h.now()
	generation := h.generation
	h.mutex.Unlock()
	if before != nil && !bytes.Equal(before.Key, after.Key) && h.onRotated != nil {
		h.onRotated(bytes.Equal(before.ReceiptKey, after.ReceiptKey))
	}
	return after, generation, nil
}
