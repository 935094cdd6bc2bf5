package assay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	maxSends        = 4
	maxRepeats      = 2
	maxWait         = 30 * time.Second
	defaultWait     = 500 * time.Millisecond
	maxProblemBytes = 4096
	// Around its time the guest takes a request so long. It remembers one for twice as long after that time: what is
	// sealed anew for a time further away could run a second time.
	window = 300 * time.Second
	// An answer that is no stream is held whole up to this, so that a cut one is an answer of this client.
	maxHeldBytes = 16 * 1024 * 1024
	// An answer whose receipt is to be checked is held whole: one that is longer is refused.
	maxCheckedBytes = 64 * 1024 * 1024
	ohttpKey        = "https://iana.org/assignments/http-problem-types#ohttp-key"
)

// Options of NewTransport.
type Options struct {
	// Judge of evidence, as a *Verifier.
	Judge Judge
	// Receipts: "" (off), "final" or "rolling": ask for signed receipts, and check them.
	Receipts string
	// OnReceipt is called with each last receipt before its answer ends.
	OnReceipt func(*Opened)
	// SequenceStrict refuses an answer whose receipt does not follow the one before it: for clients that ask
	// one thing after another.
	SequenceStrict bool
	// OnRotated is called when fresh evidence has another key.
	OnRotated func(sameBoot bool)
	// Once: never seal anew what an earlier boot may have run.
	Once bool
	// Base carries sealed bytes; the default does not judge certificates, since sealed bodies do not rest on TLS.
	Base http.RoundTripper
	// Wait, by default time.Sleep that a context ends.
	Wait func(context.Context, time.Duration) error
	// Now is a clock with a monotonic reading; default time.Now.
	Now func() time.Time
}

// Transport is an http.RoundTripper whose requests only the attested guest can open (docs/sealed.md). Every
// request goes sealed to one origin: only its path counts. Before anything was sent it fails with an *Error. What
// ends a request that was sent is a 502 of its own with x-should-retry: false and that code, since SDKs repeat
// what a transport fails with. A body that is cut or altered fails with an *Error in place of io.EOF.
type Transport struct {
	holder   *holder
	options  Options
	receipts sequence
	// maxCheckedBytes, but in tests.
	checked int
}

// NewTransport seals to the guest at url, https or http on loopback.
func NewTransport(url string, options Options) (*Transport, error) {
	origin, err := originOf(url)
	if err != nil {
		return nil, err
	}
	if options.Judge == nil || options.Receipts != "" && options.Receipts != "final" && options.Receipts != "rolling" {
		return nil, refuse("wrong_usage", "a judge is needed, and receipts are final, rolling or none")
	}
	if options.Base == nil {
		options.Base = &http.Transport{
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // The sealed body does not rest on TLS.
			DisableCompression: true,
		}
	}
	if options.Wait == nil {
		options.Wait = waitFor
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	h := &holder{origin: origin, judge: options.Judge, now: options.Now, onRotated: options.OnRotated}
	return &Transport{holder: h, options: options, checked: maxCheckedBytes}, nil
}

// Verify asks for evidence and has it judged, without sending a request.
func (t *Transport) Verify(ctx context.Context) (*Evidence, error) {
	t.holder.mutex.Lock()
	seen := t.holder.generation
	t.holder.mutex.Unlock()
	evidence, _, err := t.holder.renew(ctx, seen)
	return evidence, err
}

func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	var content []byte
	if request.Body != nil {
		var err error
		content, err = io.ReadAll(request.Body)
		request.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	c := &call{transport: t, request: request, content: content, head: headOf(request, content)}
	c.model = modelOf(c.head.fields, content)
	if t.options.Receipts != "" && asksForReceipt(c.head.method, c.head.path) {
		c.nonce = make([]byte, 32)
		rand.Read(c.nonce)
		kept := c.head.fields[:0]
		for _, field := range c.head.fields {
			if !strings.HasPrefix(field.Name, "assay-receipt") {
				kept = append(kept, field)
			}
		}
		c.head.fields = append(kept, Field{"assay-receipts", t.options.Receipts},
			Field{"assay-receipt-nonce", hex.EncodeToString(c.nonce)})
	}
	held, generation, err := t.holder.current(request.Context())
	if err != nil {
		return nil, err
	}
	sealed, err := c.seal(held, nil, t.holder.sealedSeconds())
	if err != nil {
		return nil, err
	}
	response, err := c.tries(held, generation, sealed)
	if own := (*Error)(nil); errors.As(err, &own) {
		return ownResponse(own, request), nil
	}
	return response, err
}

type call struct {
	transport *Transport
	request   *http.Request
	head      requestHead
	content   []byte
	model     string
	nonce     []byte
}

// unsealed is an answer whose body is shown to no one. Status 0: there was none.
type unsealed struct {
	status     int
	retryAfter string
	problem    []byte
}

type answered struct {
	opened *openedResponse
	body   io.Closer
}

var secondsPattern = regexp.MustCompile("^[0-9]{1,15}$")

func unknown() error {
	return refuse("sealed_outcome_unknown", "whether the request was executed cannot be known")
}

// The same bytes again while the outcome is unknown; sealed anew only for another key, or for the guest's clock.
func (c *call) tries(held *Evidence, seen int, sealed *sealedRequest) (*http.Response, error) {
	holder, options, ctx := c.transport.holder, c.transport.options, c.request.Context()
	repeats, anewKey, anewClock := 0, false, false
	for sends := 1; ; sends++ {
		var at int64
		answer, plain, err := c.send(sealed)
		if err != nil {
			return nil, err
		}
		switch {
		case answer != nil:
			code, prefix := "", []byte(nil)
			var readErr error
			if answer.opened.head.status == http.StatusConflict {
				prefix, readErr = readContent(answer.opened, maxHeldBytes)
				code = codeIn(prefix)
			}
			// After sealed_replayed, too: a time this client has wrong would end each of its calls.
			if code == "attestation_stale" || code == "sealed_replayed" {
				holder.spoil()
			}
			if code != "sealed_replayed" && code != "sealed_clock" {
				return c.respond(answer, held, sealed, prefix, readErr)
			}
			answer.body.Close()
			text, _ := fieldOf(answer.opened.head.fields, "assay-sealed-time")
			if code == "sealed_replayed" || !secondsPattern.MatchString(text) {
				return nil, unknown()
			}
			at, _ = strconv.ParseInt(text, 10, 64)
			holder.setSeconds(at)
			// Only bytes whose time is over are dead: those of a time to come could run later. After a key the guest
			// may have forgotten the first request, and of bytes sealed long ago that they ran.
			late := options.Now().Sub(sealed.sealedAt) >= window
			if at <= sealed.at || late || anewKey || anewClock || sends >= maxSends {
				return nil, unknown()
			}
			anewClock = true
		case isUnknown(plain.status):
			if repeats >= maxRepeats || sends >= maxSends {
				return nil, unknown()
			}
			repeats++
			if err := options.Wait(ctx, waitOf(plain.retryAfter)); err != nil {
				return nil, unknown()
			}
			continue
		case plain.status != http.StatusBadRequest || problemType(plain.problem) != ohttpKey:
			return nil, refuse("sealed_unavailable", "an answer that is not the guest's, with status %d", plain.status)
		default:
			fresh, generation, err := holder.renew(ctx, seen)
			if err != nil {
				return nil, asError(err)
			}
			if bytes.Equal(fresh.Key, held.Key) {
				return nil, refuse("sealed_refused", "the guest holds the proven key, so the request was altered on the way")
			}
			// The guest must still know what was sent when it takes what is sealed anew.
			otherBoot := !bytes.Equal(fresh.ReceiptKey, held.ReceiptKey)
			at = holder.sealedSeconds()
			apart := max(at-sealed.at, sealed.at-at)
			if options.Once && otherBoot || !otherBoot && apart > int64(window/time.Second) || anewKey || sends >= maxSends {
				return nil, unknown()
			}
			anewKey, held, seen = true, fresh, generation
		}
		if sealed, err = c.seal(held, sealed, at); err != nil {
			return nil, asError(err)
		}
	}
}

func (c *call) seal(held *Evidence, before *sealedRequest, at int64) (*sealedRequest, error) {
	head := c.head
	sealedAt := c.transport.options.Now()
	head.fields = append(append([]Field(nil), head.fields...), Field{"assay-sealed-at", strconv.FormatInt(at, 10)})
	digest := held.Models[c.model]
	if c.model == "" && len(held.Models) == 1 {
		for _, digest = range held.Models {
		}
	}
	if c.model != "" && digest == "" {
		return nil, refuse("model_not_attested", "the request names the model %.128q, which is not attested", c.model)
	}
	if digest != "" {
		head.fields = append(head.fields, Field{"assay-model", digest})
	}
	if before != nil {
		entry := fmt.Sprintf("%x;at=%d", before.digest[:entryBytes], before.at)
		head.fields = append(head.fields, Field{"assay-sealed-before", entry})
	}
	sealed, err := sealRequest(held.Key, head, c.content)
	if err != nil {
		return nil, err
	}
	sealed.at, sealed.sealedAt = at, sealedAt
	return sealed, nil
}

func (c *call) send(sealed *sealedRequest) (*answered, *unsealed, error) {
	url := c.transport.holder.origin + "/v1/sealed"
	outer, err := http.NewRequestWithContext(c.request.Context(), http.MethodPost, url, bytes.NewReader(sealed.data))
	if err != nil {
		return nil, nil, refuse("internal", "the request cannot be made")
	}
	// net/http sends a request again by itself only if it may, and a body that can be read again lets it.
	outer.GetBody = nil
	outer.Header.Set("content-type", requestType)
	outer.Header.Set("incremental", "?1")
	outer.Header.Set("cache-control", "no-store")
	outer.Header.Set("user-agent", "assay-client")
	response, err := c.transport.options.Base.RoundTrip(outer)
	if err != nil {
		if ctxErr := c.request.Context().Err(); ctxErr != nil {
			return nil, nil, ctxErr
		}
		return nil, &unsealed{}, nil
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("content-type") != responseType {
		problem, _ := io.ReadAll(io.LimitReader(response.Body, maxProblemBytes+1))
		response.Body.Close()
		return nil, &unsealed{response.StatusCode, response.Header.Get("retry-after"), problem}, nil
	}
	opened, err := openResponse(sealed.enc, sealed.export, response.Body, responseNonceBytes)
	if err != nil {
		response.Body.Close()
		return nil, nil, asError(err)
	}
	return &answered{opened, response.Body}, nil, nil
}

// The guest's answer. prefix and readErr are what was read of it already.
func (c *call) respond(
	answer *answered, held *Evidence, sealed *sealedRequest, prefix []byte, readErr error,
) (*http.Response, error) {
	head := answer.opened.head
	var expected *Expected
	_, hasReceipt := fieldOf(head.fields, "assay-receipt")
	_, hasID := fieldOf(head.fields, "assay-receipt-id")
	// Refusals before work starts have no receipt.
	if c.nonce != nil && (head.status < 400 || hasReceipt || hasID) {
		channel := Channel{Kind: "sealed", Request: string(sealed.digest[:])}
		expected = &Expected{
			ReceiptKey: held.ReceiptKey, Channel: &channel, Models: held.Models, Model: c.model,
			Method: c.head.method, Path: c.head.path, BodyDigest: sha256Of(c.content), Nonce: c.nonce,
		}
	}
	body := &answerBody{answer: answer, held: prefix, err: readErr}
	kind, _ := fieldOf(head.fields, "content-type")
	if !strings.HasPrefix(strings.ToLower(kind), "text/event-stream") {
		most := maxHeldBytes
		if expected != nil {
			most = c.transport.checked
		}
		err := body.fill(most)
		if err == nil && expected != nil && body.err != io.EOF {
			err = refuse("input_too_large", "the answer is over %d bytes, the most that is held", most)
		}
		if err != nil {
			body.Close()
			return nil, asError(err)
		}
		if expected != nil {
			opened, err := checkWhole(head.fields, head.status, body.held, expected)
			if err != nil {
				body.Close()
				return nil, asError(err)
			}
			if err := c.transport.accept(opened); err != nil {
				body.Close()
				return nil, asError(err)
			}
		}
	} else if expected != nil {
		body.check = NewStreamCheck(expected, nil)
		body.check.accept = c.transport.accept
		if first := body.held; len(first) > 0 {
			body.held, body.err = body.check.Push(first)
		}
	}
	// What fails before a byte was given out is an answer of this client.
	if err := body.more(); err != nil && err != io.EOF && len(body.held) == 0 {
		body.Close()
		return nil, asError(err)
	}
	response := &http.Response{
		Status: strconv.Itoa(head.status) + " " + http.StatusText(head.status), StatusCode: head.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, ContentLength: -1,
		Body: body, Request: c.request,
	}
	for _, field := range head.fields {
		response.Header.Add(field.Name, field.Value)
	}
	return response, nil
}

// accept notes a receipt that holds, before its answer ends.
func (t *Transport) accept(opened *Opened) error {
	apart, err := t.receipts.note(opened.Receipt, sha256Of(opened.Data))
	if err != nil {
		return err
	}
	if apart && t.options.SequenceStrict {
		return refuse("receipt_sequence", "the receipt does not follow the one before it")
	}
	if t.options.OnReceipt != nil {
		t.options.OnReceipt(opened)
	}
	return nil
}

func isUnknown(status int) bool {
	switch status {
	case 0, 408, 429, 502, 503, 504:
		return true
	}
	return false
}

func waitOf(text string) time.Duration {
	seconds, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || !(seconds >= 0) {
		return defaultWait
	}
	return time.Duration(min(seconds, maxWait.Seconds()) * float64(time.Second))
}

func waitFor(ctx context.Context, length time.Duration) error {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func problemType(text []byte) string {
	kind, _ := objectOf(text)["type"].(string)
	return kind
}

// {error: {code}}, or that of the Messages API.
func codeIn(text []byte) string {
	failure, _ := objectOf(text)["error"].(map[string]any)
	code, has := failure["code"].(string)
	if details, ok := failure["details"].(map[string]any); !has && ok {
		code, _ = details["error_code"].(string)
	}
	return code
}

// An end of the connection before the final chunk is a cut.
func asError(err error) error {
	if own := (*Error)(nil); errors.As(err, &own) {
		return own
	}
	return truncated()
}

func ownResponse(own *Error, request *http.Request) *http.Response {
	type failure struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	}
	text, _ := json.Marshal(map[string]failure{"error": {own.Message, "server_error", nil, own.Code}})
	return &http.Response{
		Status: "502 Bad Gateway", StatusCode: http.StatusBadGateway, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}, "X-Should-Retry": {"false"}},
		Body:   io.NopCloser(bytes.NewReader(text)), ContentLength: int64(len(text)), Request: request,
	}
}
