package assay

// The transport's rules (docs/sealed.md [B3] [B7] [B8] [B9] [B12] [B13] [B14], docs/receipts.md [R10] [R20]).

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestNothingIsInTheClear(t *testing.T) {
	w := newWorld(t, ok)
	status, body, code := w.post(nil)
	same(t, []any{status, body, code}, []any{200, whole, nil})
	model, _ := fieldOf(w.seen[0].head.fields, "assay-model")
	at, _ := fieldOf(w.seen[0].head.fields, "assay-sealed-at")
	same(t, []string{model, at, w.seen[0].head.path}, []string{modelDigest, "1770000000", "/v1/chat/completions?a=canary-query"})
	outside := fmt.Sprint(w.headers) + string(w.sent[0])
	for _, secret := range []string{"canary", "/v1/chat", "demo", "uthorization"} {
		if strings.Contains(outside, secret) {
			t.Fatal(secret)
		}
	}
}

func TestRefusalsBeforeAnythingIsSent(t *testing.T) {
	w := newWorld(t, ok)
	w.refusal = refuse("snp_measurement", "refused")
	_, _, code := w.post(nil)
	same(t, []any{code, len(w.sent)}, []any{"snp_measurement", 0})
	w = newWorld(t, ok)
	_, err := w.client(nil).Post(chatURL, "application/json", strings.NewReader(`{"model":"unknown"}`))
	same(t, []any{codeOf(err), len(w.sent)}, []any{"model_not_attested", 0})
	for _, url := range []string{"http://appliance.example", "ftp://localhost", "http://127.0.0.1.example"} {
		_, err := NewTransport(url, Options{Judge: w})
		same(t, codeOf(err), "plain_http")
	}
}

func TestStreamsEndOnlyAfterTheFinalChunk(t *testing.T) {
	events := []string{"data: 1\n\n", "data: 2\n\n"}
	var length, total int
	stream := func(w *world, data []byte, _ int) (*http.Response, error) {
		parts := bytes.Join(sealedParts(w.open(data), 200, []Field{{"content-type", "text/event-stream"}}, events), nil)
		total = len(parts)
		return respondWith([][]byte{parts[:min(length, total)]})
	}
	length = 1 << 20
	_, body, code := newWorld(t, stream).post(nil)
	same(t, []any{body, code}, []any{"data: 1\n\ndata: 2\n\n", nil})
	for length = 0; length < total; length++ {
		_, body, code := newWorld(t, stream).post(nil)
		if code != "sealed_truncated" && code != "sealed_altered" || strings.Contains(body, "2\n\ndata") {
			t.Fatal(length, code)
		}
	}
}

func TestTheModelOfAFormIsFound(t *testing.T) {
	for _, head := range []string{
		"content-disposition: form-data; name=\"model\"",
		"Content-Disposition: form-data; name=\"model\"\r\nContent-Type: text/plain",
		"content-disposition: form-data; name=model",
	} {
		body := "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\nsound\r\n" +
			"--b\r\n" + head + "\r\n\r\ndemo\r\n--b--\r\n"
		same(t, modelOf([]Field{{"content-type", "multipart/form-data; boundary=b"}}, []byte(body)), "demo")
	}
}

func TestTries(t *testing.T) {
	clock := func(right string) func(*world, []byte, int) (*http.Response, error) {
		return func(w *world, data []byte, count int) (*http.Response, error) {
			o := w.open(data)
			if at, _ := fieldOf(o.head.fields, "assay-sealed-at"); at == right {
				return ok(w, data, count)
			}
			return sealedError(o, "sealed_clock", Field{"assay-sealed-time", "1770001000"})
		}
	}
	moved := func(seconds int64) func(*world) {
		return func(w *world) {
			w.rotate()
			w.issuedAt += seconds
		}
	}
	changed := func(change func(*world), once bool) func(*world, []byte, int) (*http.Response, error) {
		return func(w *world, data []byte, count int) (*http.Response, error) {
			if count > 1 && once {
				return ok(w, data, count)
			}
			change(w)
			return keyProblem()
		}
	}
	for _, each := range []struct {
		name    string
		answer  func(*world, []byte, int) (*http.Response, error)
		once    bool
		code    any
		sends   int
		distinc int
	}{
		{"broken", func(*world, []byte, int) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, false, "sealed_outcome_unknown", 3, 1},
		{"503", func(*world, []byte, int) (*http.Response, error) {
			return plainAnswer(503, "retry-after", "1e9", "forged")
		}, false, "sealed_outcome_unknown", 3, 1},
		{"forged 200", func(*world, []byte, int) (*http.Response, error) { return plainAnswer(200, "a", "b", "forged") }, false, "sealed_unavailable", 1, 1},
		{"redirect", func(*world, []byte, int) (*http.Response, error) {
			return plainAnswer(302, "location", "https://evil.example/", "forged")
		}, false, "sealed_unavailable", 1, 1},
		{"replayed", func(w *world, data []byte, _ int) (*http.Response, error) {
			return sealedError(w.open(data), "sealed_replayed")
		}, false, "sealed_outcome_unknown", 1, 1},
		{"clock", clock("1770001000"), false, nil, 2, 2},
		{"clock again", clock("never"), false, "sealed_outcome_unknown", 2, 2},
		{"clock behind this one: these bytes could run later", func(w *world, data []byte, _ int) (*http.Response, error) {
			return sealedError(w.open(data), "sealed_clock", Field{"assay-sealed-time", "1769999000"})
		}, false, "sealed_outcome_unknown", 1, 1},
		{"clock, late", func(w *world, data []byte, _ int) (*http.Response, error) {
			w.now = w.now.Add(window)
			return sealedError(w.open(data), "sealed_clock", Field{"assay-sealed-time", "1770001000"})
		}, false, "sealed_outcome_unknown", 1, 1},
		{"rotated, a window later", changed(moved(300), true), false, nil, 2, 2},
		{"rotated, later", changed(moved(301), true), false, "sealed_outcome_unknown", 1, 1},
		{"rotated, earlier", changed(moved(-301), true), false, "sealed_outcome_unknown", 1, 1},
		{"rotated, then clock", func(w *world, data []byte, count int) (*http.Response, error) {
			if count == 1 {
				w.rotate()
				return keyProblem()
			}
			return sealedError(w.open(data), "sealed_clock", Field{"assay-sealed-time", "1770001000"})
		}, false, "sealed_outcome_unknown", 2, 2},
		{"rotated", changed((*world).rotate, true), false, nil, 2, 2},
		{"rotated again", changed((*world).rotate, false), false, "sealed_outcome_unknown", 2, 2},
		{"same key", changed(func(*world) {}, false), false, "sealed_refused", 1, 1},
		{"restarted", changed((*world).restart, true), false, nil, 2, 2},
		{"restarted, once", changed((*world).restart, true), true, "sealed_outcome_unknown", 1, 1},
		{"refused after a send", changed(func(w *world) { w.refusal = refuse("snp_measurement", "no") }, false), false, "snp_measurement", 1, 1},
	} {
		w := newWorld(t, each.answer)
		_, body, code := w.post(func(o *Options) { o.Once = each.once })
		distinct := map[string]bool{}
		for _, data := range w.sent {
			distinct[string(data)] = true
		}
		if code != each.code || len(w.sent) != each.sends || len(distinct) != each.distinc || strings.Contains(body, "forged") {
			t.Fatal(each.name, code, len(w.sent), len(distinct))
		}
		if each.name == "503" {
			same(t, w.waited, []time.Duration{maxWait, maxWait})
		}
		if each.name == "clock" {
			before, _ := fieldOf(w.seen[len(w.seen)-1].head.fields, "assay-sealed-before")
			digest := sha256Of(append(bytes.Clone(w.key.PublicKey().Bytes()), w.seen[0].enc...))
			at, _ := fieldOf(w.seen[0].head.fields, "assay-sealed-at")
			same(t, before, fmt.Sprintf("%x;at=%s", digest[:entryBytes], at))
		}
	}
}

// receiptOf signs a last receipt of the answer; change edits its payload.
func receiptOf(w *world, o openedRequest, transcript string, events uint64, change func(map[any]any)) []byte {
	salt := bytes.Repeat([]byte{0x5a}, 32)
	zero := make([]byte, 32)
	nonce, _ := fieldOf(o.head.fields, "assay-receipt-nonce")
	model := unhex(modelDigest)
	request := sha256Of(append(bytes.Clone(w.key.PublicKey().Bytes()), o.enc...))
	n := func(values ...any) map[any]any {
		out := map[any]any{}
		for i, value := range values {
			out[uint64(i)] = value
		}
		return out
	}
	u := func(v int) any { return uint64(v) }
	body := n("assay/receipt/v1", u(1), bytes.Repeat([]byte{0x1d}, 16), zero[:16], u(0), zero,
		[]byte(w.signer.Public().(ed25519.PublicKey)), n(u(1), request), n("demo", "blob", model, []any{}, nil),
		n("1", zero, "x64", u(1), u(1), u(512), u(1)),
		n(o.head.method, o.head.path, commitment(salt, fieldBody, 0, sha256Of(o.body)), nil), nil,
		n(u(200), commitment(salt, fieldTranscript, 0, sha256Of([]byte(transcript))), events, []any{}, "complete"),
		n(u(3), u(2), u(0)), n(u(1), u(2)), unhex(nonce))
	if change != nil {
		change(body)
	}
	payload := encodeCBOR(body)
	signature := ed25519.Sign(w.signer, encodeCBOR([]any{"Signature1", protected, []byte{}, payload}))
	return encodeCBOR([]any{protected, map[any]any{}, payload, signature})
}

func TestReceipts(t *testing.T) {
	salt := bytes.Repeat([]byte{0x5a}, 32)
	zero := make([]byte, 32)
	final := func(o *Options) { o.Receipts = "final" }
	for code, change := range map[any]func(map[any]any){
		nil:                 nil,
		"receipt_evidence":  func(b map[any]any) { b[uint64(7)] = map[any]any{uint64(0): uint64(1), uint64(1): zero} },
		"receipt_nonce":     func(b map[any]any) { b[uint64(15)] = zero },
		"receipt_usage":     func(b map[any]any) { b[uint64(13)].(map[any]any)[uint64(1)] = uint64(9) },
		"receipt_model":     func(b map[any]any) { b[uint64(8)].(map[any]any)[uint64(2)] = zero },
		"receipt_request":   func(b map[any]any) { b[uint64(10)].(map[any]any)[uint64(2)] = zero },
		"receipt_malformed": func(b map[any]any) { b[uint64(4)] = "0" },
	} {
		w := newWorld(t, func(w *world, data []byte, _ int) (*http.Response, error) {
			o := w.open(data)
			header := ":" + base64.StdEncoding.EncodeToString(receiptOf(w, o, whole, 0, change)) + ":;salt=:" +
				base64.StdEncoding.EncodeToString(salt) + ":"
			return respondWith(sealedParts(o, 200, []Field{{"assay-receipt", header}}, []string{whole}))
		})
		kept := 0
		_, _, got := w.post(func(o *Options) { o.Receipts, o.OnReceipt = "final", func(*Opened) { kept++ } })
		if got != code || (kept == 1) != (code == nil) {
			t.Fatal(code, got, kept)
		}
	}
	_, _, code := newWorld(t, ok).post(final)
	same(t, code, "receipt_missing")

	events := "data: {\"a\":1}\n\ndata: {\"a\":2}\n\n"
	done := "data: [DONE]\n\n"
	for _, each := range []struct {
		pick   func(opening, last string) []string
		body   string
		code   any
		change func(map[any]any)
	}{
		{func(o, l string) []string { return []string{o, events, l, done} }, events + done, nil, nil},
		{func(o, l string) []string { return []string{o, events} }, events, "receipt_truncated", nil},
		{func(o, l string) []string { return []string{o, events, done} }, events, "receipt_missing", nil},
		{func(o, l string) []string { return []string{events, l, done} }, "", "receipt_missing", nil},
		{func(o, l string) []string { return []string{o, events[15:], l, done} }, events[15:], "receipt_transcript", nil},
		{func(o, l string) []string { return []string{o, events, l, done} }, events, "receipt_nonce", func(b map[any]any) { b[uint64(15)] = zero }},
	} {
		w := newWorld(t, func(w *world, data []byte, _ int) (*http.Response, error) {
			o := w.open(data)
			raw := base64.RawURLEncoding
			signed := receiptOf(w, o, "\n{\"a\":1}\n\n{\"a\":2}\n", 2, each.change)
			opening := fmt.Sprintf(": assay-open %x %s\n\n", bytes.Repeat([]byte{0x1d}, 16), raw.EncodeToString(salt))
			last := fmt.Sprintf(": assay-receipt %s\n\n", raw.EncodeToString(signed))
			return respondWith(sealedParts(o, 200, []Field{{"content-type", "text/event-stream"}}, each.pick(opening, last)))
		})
		status, body, code := w.post(final)
		if status == 502 {
			body = ""
		}
		same(t, []any{body, code}, []any{each.body, each.code})
	}
}

func TestEvidenceOfTheVerifier(t *testing.T) {
	text, _ := json.Marshal(map[string]any{"key": strings.Repeat("00", 32), "key_id": 0})
	_, err := readEvidence(text)
	same(t, codeOf(err), "internal")
	_, err = (&Verifier{Command: []string{"/nonexistent"}}).Judge(context.Background(), guestURL)
	same(t, codeOf(err), "internal")
	shell := "echo 'REFUSED  x' >&2; echo '         policy_channel (C10): no' >&2; exit 10"
	_, err = (&Verifier{Command: []string{"/bin/sh", "-c", shell}}).Judge(context.Background(), guestURL)
	same(t, codeOf(err), "policy_channel")
}

func BenchmarkSeal(b *testing.B) {
	key, _ := hpke.DHKEM(ecdh.X25519()).GenerateKey()
	head := requestHead{"POST", "/v1/chat/completions", []Field{{"content-type", "application/json"}}}
	body := bytes.Repeat([]byte{'a'}, 4096)
	for b.Loop() {
		if _, err := sealRequest(key.PublicKey().Bytes(), head, body); err != nil {
			b.Fatal(err)
		}
	}
}

// What becomes of answers whose receipts have these places and hashes of the one before.
func chainOf(t *testing.T, strict bool, places []uint64, prevs [][]byte) (codes []any) {
	salt := bytes.Repeat([]byte{0x5a}, 32)
	w := newWorld(t, func(w *world, data []byte, count int) (*http.Response, error) {
		o := w.open(data)
		signed := receiptOf(w, o, whole, 0, func(b map[any]any) {
			b[uint64(4)], b[uint64(5)] = places[count-1], prevs[count-1]
		})
		header := ":" + base64.StdEncoding.EncodeToString(signed) + ":;salt=:" +
			base64.StdEncoding.EncodeToString(salt) + ":"
		return respondWith(sealedParts(o, 200, []Field{{"assay-receipt", header}}, []string{whole}))
	})
	client := w.client(func(o *Options) { o.Receipts, o.SequenceStrict = "final", strict })
	for range places {
		response, err := client.Post(chatURL, "application/json", strings.NewReader(chatBody))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		if response.StatusCode == 200 {
			codes = append(codes, nil)
		} else {
			codes = append(codes, codeIn(text))
		}
	}
	return codes
}

func TestTheOrderOfReceipts(t *testing.T) {
	zero, other := make([]byte, 32), bytes.Repeat([]byte{7}, 32)
	gap, gapPrevs := []uint64{0, 2}, [][]byte{zero, other}
	same(t, chainOf(t, false, gap, gapPrevs), []any{nil, nil})
	same(t, chainOf(t, true, gap, gapPrevs), []any{nil, "receipt_sequence"})
	same(t, chainOf(t, true, []uint64{5}, [][]byte{other}), []any{nil})
	// Another hash than that of the receipt that was in its place.
	same(t, chainOf(t, false, []uint64{0, 1}, [][]byte{zero, other}), []any{nil, "receipt_sequence"})
	same(t, chainOf(t, false, []uint64{0, 0}, [][]byte{zero, zero}), []any{nil, "receipt_sequence"})
}

func TestAnAnswerThatIsTooLongToBeChecked(t *testing.T) {
	w := newWorld(t, ok)
	client := w.client(func(o *Options) { o.Receipts = "final" })
	client.Transport.(*Transport).checked = len(whole) - 1
	response, err := client.Post(chatURL, "application/json", strings.NewReader(chatBody))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(response.Body)
	same(t, []any{response.StatusCode, codeIn(text)}, []any{502, "input_too_large"})
}
