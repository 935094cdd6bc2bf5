package assay

// A guest, a network that does what a test says, and what they saw.

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

const (
	guestURL = "https://appliance.example"
	chatURL  = guestURL + "/v1/chat/completions"
	chatBody = `{"model":"demo","messages":[{"content":"canary-prompt"}]}`
	whole    = `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}`
)

var modelDigest = strings.Repeat("11", 32)

// world is a guest, a network that does what the test says, and what they saw.
type world struct {
	t       *testing.T
	key     hpke.PrivateKey
	signer  ed25519.PrivateKey
	answer  func(w *world, data []byte, count int) (*http.Response, error)
	sent    [][]byte
	headers []http.Header
	seen    []openedRequest
	asked   int
	refusal error
	waited  []time.Duration
	rotated []bool
	now     time.Time
	// Seconds of sealed time that evidence says.
	issuedAt int64
}

func newWorld(t *testing.T, answer func(*world, []byte, int) (*http.Response, error)) *world {
	w := &world{t: t, answer: answer, now: time.Now(), issuedAt: 1_770_000_000}
	w.restart()
	return w
}

func (w *world) rotate() {
	key, err := hpke.DHKEM(ecdh.X25519()).GenerateKey()
	if err != nil {
		w.t.Fatal(err)
	}
	w.key = key
}

func (w *world) restart() {
	w.rotate()
	_, w.signer, _ = ed25519.GenerateKey(nil)
}

func (w *world) Judge(context.Context, string) (*Evidence, error) {
	w.asked++
	if w.refusal != nil {
		return nil, w.refusal
	}
	models := map[string]string{"demo": modelDigest, "other": strings.Repeat("22", 32)}
	return &Evidence{w.key.PublicKey().Bytes(), w.signer.Public().(ed25519.PublicKey), models, w.issuedAt, w.issuedAt + 600}, nil
}

func (w *world) RoundTrip(request *http.Request) (*http.Response, error) {
	data, err := io.ReadAll(request.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	w.sent = append(w.sent, data)
	w.headers = append(w.headers, request.Header)
	return w.answer(w, data, len(w.sent))
}

func (w *world) open(data []byte) openedRequest {
	o := openRequestAs(w.key, data, 1<<20)
	if o.first != nil || o.err != nil {
		w.t.Fatal(o.first, o.err)
	}
	w.seen = append(w.seen, o)
	return o
}

func (w *world) client(change func(*Options)) *http.Client {
	options := Options{
		Judge: w, Base: w, Now: func() time.Time { return w.now },
		OnRotated: func(same bool) { w.rotated = append(w.rotated, same) },
		Wait:      func(_ context.Context, d time.Duration) error { w.waited = append(w.waited, d); return nil },
	}
	if change != nil {
		change(&options)
	}
	transport, err := NewTransport(guestURL, options)
	if err != nil {
		w.t.Fatal(err)
	}
	return &http.Client{Transport: transport}
}

// post gives status, body, and the error that came in place of its end; the code of an answer of the client's own.
func (w *world) post(change func(*Options)) (status int, body string, code any) {
	w.t.Helper()
	request, _ := http.NewRequest("POST", chatURL+"?a=canary-query", strings.NewReader(chatBody))
	request.Header.Set("content-type", "application/json")
	request.Header.Set("authorization", "Bearer canary-key")
	response, err := w.client(change).Do(request)
	if err != nil {
		return 0, "", codeOf(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return response.StatusCode, string(text), codeOf(err)
	}
	if response.StatusCode == 502 && response.Header.Get("x-should-retry") == "false" {
		return 502, string(text), codeIn(text)
	}
	return response.StatusCode, string(text), nil
}

func sealedParts(o openedRequest, status int, fields []Field, pieces []string) [][]byte {
	nonce := make([]byte, responseNonceBytes)
	rand.Read(nonce)
	secret, _ := o.recipient.Export(responseLabel, 32)
	prk, _ := hkdf.Extract(sha256.New, secret, append(bytes.Clone(o.enc), nonce...))
	key, _ := hkdf.Expand(sha256.New, prk, "key", 32)
	base, _ := hkdf.Expand(sha256.New, prk, "nonce", 12)
	block, _ := aes.NewCipher(key)
	aead, _ := cipher.NewGCM(block)
	head := appendVarint([]byte{3}, status)
	for _, field := range fields {
		head = appendText(appendText(head, field.Name), field.Value)
	}
	plain := [][]byte{append(head, 0)}
	for _, piece := range pieces {
		plain = append(plain, appendText(nil, piece))
	}
	plain = append(plain, []byte{0})
	parts := [][]byte{nonce}
	for i, each := range plain {
		own := bytes.Clone(base)
		binary.BigEndian.PutUint64(own[4:], binary.BigEndian.Uint64(own[4:])^uint64(i))
		var aad []byte
		if i == len(plain)-1 {
			aad = final
		}
		sealed := aead.Seal(nil, own, each, aad)
		length := len(sealed)
		if aad != nil {
			length = 0
		}
		parts = append(parts, append(appendVarint(nil, length), sealed...))
	}
	return parts
}

func respondWith(parts [][]byte) (*http.Response, error) {
	return plainAnswer(200, "content-type", responseType, string(bytes.Join(parts, nil)))
}

func plainAnswer(status int, name, value, body string) (*http.Response, error) {
	header := http.Header{}
	header.Set(name, value)
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func keyProblem() (*http.Response, error) {
	return plainAnswer(400, "content-type", "application/problem+json", fmt.Sprintf(`{"type":%q}`, ohttpKey))
}

func sealedError(o openedRequest, code string, fields ...Field) (*http.Response, error) {
	return respondWith(sealedParts(o, 409, fields, []string{fmt.Sprintf(`{"error":{"code":%q}}`, code)}))
}

func ok(w *world, data []byte, _ int) (*http.Response, error) {
	return respondWith(sealedParts(w.open(data), 200, []Field{{"content-type", "application/json"}}, []string{whole}))
}

func same(t *testing.T, actual, expected any) {
	t.Helper()
	if !reflect.DeepEqual(actual, expected) {
		t.Fatalf("%v, expected %v", actual, expected)
	}
}
