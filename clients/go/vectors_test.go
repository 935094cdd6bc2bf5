package assay

// sealed-v1.json and receipts-v1.json pass, and one wrong expectation is noticed ([B22], [R24]).

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"testing"
)

const (
	sealedVectors  = "../../test/vectors/sealed/sealed-v1.json"
	receiptVectors = "../../test/vectors/receipts/receipts-v1.json"
)

func load(t *testing.T, path string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var vectors map[string]any
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

func unhex(value any) []byte {
	data, err := hex.DecodeString(value.(string))
	if err != nil {
		panic(err)
	}
	return data
}

func codeOf(err error) any {
	if own := (*Error)(nil); errors.As(err, &own) {
		return own.Code
	}
	return nil
}

func recipientOf(private any) hpke.PrivateKey {
	key, err := hpke.DHKEM(ecdh.X25519()).NewPrivateKey(unhex(private))
	if err != nil {
		panic(err)
	}
	return key
}

// pieces reads data in pieces of a size.
type pieces struct {
	data []byte
	size int
}

func (p *pieces) Read(into []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	count := copy(into, p.data[:min(len(p.data), p.size)])
	p.data = p.data[count:]
	return count, nil
}

type openedRequest struct {
	head       requestHead
	body       []byte
	enc        []byte
	recipient  *hpke.Recipient
	first, err error
}

// As the guest reads a request: first is the fault up to the first chunk.
func openRequestAs(key hpke.PrivateKey, data []byte, size int) (o openedRequest) {
	chunks := chunkReader{&pieces{data, size}}
	publicKey := key.PublicKey().Bytes()
	header := make([]byte, 7)
	o.enc = make([]byte, keyBytes)
	if o.first = errors.Join(chunks.fill(header), chunks.fill(o.enc)); o.first != nil {
		return o
	}
	if !bytes.Equal(header, requestHeader(keyIDOf(publicKey), aes256)) || !isUsablePoint(o.enc) {
		o.first = malformed("the header")
		return o
	}
	o.recipient, o.first = hpke.NewRecipient(o.enc, key, hpke.HKDFSHA256(), hpke.AES256GCM(), requestInfo(header))
	if o.first != nil {
		return o
	}
	sealed, last, err := chunks.next(maxHeadBytes)
	if err != nil || last {
		o.first = malformed("the first chunk")
		return o
	}
	first, err := o.recipient.Open(nil, sealed)
	if err != nil {
		o.first = altered()
		return o
	}
	head, indeterminate, err := decodeRequestHead(first)
	if o.head, o.err = head, err; err != nil {
		return o
	}
	content := &contentReader{indeterminate: indeterminate}
	for {
		sealed, last, err := chunks.next(maxChunkBytes)
		if o.err = err; err != nil {
			return o
		}
		var aad []byte
		if last {
			aad = final
		}
		plain, err := o.recipient.Open(aad, sealed)
		if err != nil {
			o.err = altered()
			return o
		}
		piece, err := content.push(plain)
		if o.body, o.err = append(o.body, piece...), err; err != nil {
			return o
		}
		if last {
			o.err = content.end()
			return o
		}
	}
}

func listed(fields []Field) []any {
	out := []any{}
	for _, field := range fields {
		out = append(out, []any{field.Name, field.Value})
	}
	return out
}

func readRequest(key hpke.PrivateKey, data []byte, size int) any {
	o := openRequestAs(key, data, size)
	if o.first != nil {
		return "ohttp-key"
	}
	if o.err != nil {
		return codeOf(o.err)
	}
	digest := sha256Of(append(append([]byte(nil), key.PublicKey().Bytes()...), o.enc...))
	return map[string]any{
		"method": o.head.method, "path": o.head.path, "fields": listed(o.head.fields),
		"body": hex.EncodeToString(o.body), "digest": hex.EncodeToString(digest),
	}
}

func readResponse(secret, enc, data []byte, size, nonce int) any {
	export := func(string, int) ([]byte, error) { return secret, nil }
	opened, err := openResponse(enc, export, &pieces{data, size}, nonce)
	if err != nil {
		return codeOf(err)
	}
	body, err := readContent(opened, -1)
	if err != io.EOF {
		return codeOf(err)
	}
	return map[string]any{
		"status": float64(opened.head.status), "fields": listed(opened.head.fields), "body": hex.EncodeToString(body),
	}
}

// runSealed gives how many were compared, and which differ.
func runSealed(vectors map[string]any) (count int, failed []string) {
	same := func(name string, actual, expected any) {
		count++
		if !reflect.DeepEqual(actual, expected) {
			failed = append(failed, name)
		}
	}
	rfc := vectors["rfc9180"].(map[string]any)
	context, err := hpke.NewRecipient(
		unhex(rfc["enc"]), recipientOf(rfc["private_key"]), hpke.HKDFSHA256(), hpke.AES128GCM(), unhex(rfc["info"]))
	same("rfc9180", err, nil)
	for _, each := range rfc["chunks"].([]any) {
		chunk := each.(map[string]any)
		opened, _ := context.Open(unhex(chunk["aad"]), unhex(chunk["sealed"]))
		same("rfc9180 chunk", hex.EncodeToString(opened), rfc["plaintext"])
	}
	draft := vectors["draft_example"].(map[string]any)
	sealed := unhex(draft["sealed_request"])
	same("draft header", sealed[:7], requestHeader(byte(draft["key_id"].(float64)), aes128))
	context, err = hpke.NewRecipient(sealed[7:39], recipientOf(draft["private_key"]), hpke.HKDFSHA256(), hpke.AES128GCM(),
		requestInfo(sealed[:7]))
	same("draft", err, nil)
	var request []byte
	for chunks, last := (chunkReader{bytes.NewReader(sealed[39:])}), false; !last; {
		var chunk, aad []byte
		if chunk, last, err = chunks.next(maxChunkBytes); err != nil {
			break
		}
		if last {
			aad = final
		}
		opened, _ := context.Open(aad, chunk)
		request = append(request, opened...)
	}
	same("draft request", hex.EncodeToString(request), draft["request"])
	secret, _ := context.Export(responseLabel, 16)
	same("draft response", readResponse(secret, sealed[7:39], unhex(draft["sealed_response"]), 7, 16),
		map[string]any{"status": 200.0, "fields": []any{}, "body": ""})

	recipient := vectors["recipient"].(map[string]any)
	key := recipientOf(recipient["private_key"])
	same("recipient", hex.EncodeToString(key.PublicKey().Bytes()), recipient["public_key"])
	same("key id", float64(keyIDOf(key.PublicKey().Bytes())), recipient["key_id"])
	for _, each := range vectors["padding"].([]any) {
		row := each.(map[string]any)
		same("padding", float64(paddedLength(int(row["length"].(float64)))), row["padded"])
	}
	each := func(group string, run func(name string, input map[string]any, expected any)) {
		for _, vector := range vectors[group].([]any) {
			v := vector.(map[string]any)
			run(group+": "+v["name"].(string), v["input"].(map[string]any), v["expect"])
		}
	}
	each("bhttp", func(name string, input map[string]any, expected any) {
		head, _, err := decodeRequestHead(unhex(input["head"]))
		if err != nil {
			same(name, codeOf(err), expected)
			return
		}
		same(name, map[string]any{"method": head.method, "path": head.path, "fields": listed(head.fields)}, expected)
	})
	for _, size := range []int{1 << 20, 1, 7} {
		each("requests", func(name string, input map[string]any, expected any) {
			same(fmt.Sprint(name, " ", size), readRequest(key, unhex(input["bytes"]), size), expected)
		})
		each("responses", func(name string, input map[string]any, expected any) {
			read := readResponse(unhex(input["secret"]), unhex(input["enc"]), unhex(input["bytes"]), size, responseNonceBytes)
			same(fmt.Sprint(name, " ", size), read, expected)
		})
	}
	return count, failed
}

func TestSealedVectors(t *testing.T) {
	count, failed := runSealed(load(t, sealedVectors))
	if len(failed) > 0 || count < 170 {
		t.Fatal(count, failed)
	}
}

func TestEachWrongSealedExpectationFails(t *testing.T) {
	for group, times := range map[string]int{"bhttp": 1, "requests": 3, "responses": 3} {
		vectors := load(t, sealedVectors)
		list := vectors[group].([]any)
		for _, each := range list {
			vector := each.(map[string]any)
			if _, accepted := vector["expect"].(map[string]any); accepted {
				vector["expect"] = "sealed_clock"
			} else {
				vector["expect"] = map[string]any{"status": 200.0}
			}
		}
		if _, failed := runSealed(vectors); len(failed) != times*len(list) {
			t.Fatal(group, len(failed), len(list))
		}
	}
}

func TestCutAndChangedResponses(t *testing.T) {
	input := load(t, sealedVectors)["responses"].([]any)[0].(map[string]any)["input"].(map[string]any)
	secret, enc, data := unhex(input["secret"]), unhex(input["enc"]), unhex(input["bytes"])
	for length := range data {
		code := readResponse(secret, enc, data[:length], 1<<20, responseNonceBytes)
		if code != "sealed_truncated" && code != "sealed_altered" {
			t.Fatal(length, code)
		}
	}
	for bit := range len(data) * 8 {
		changed := bytes.Clone(data)
		changed[bit>>3] ^= 1 << (bit & 7)
		if _, isCode := readResponse(secret, enc, changed, 1<<20, responseNonceBytes).(string); !isCode {
			t.Fatal(bit)
		}
	}
}

func TestWhatIsSealedOpens(t *testing.T) {
	key := recipientOf(load(t, sealedVectors)["recipient"].(map[string]any)["private_key"])
	for _, length := range []int{0, 1, 1000, 16384, 70000} {
		body := bytes.Repeat([]byte{7}, length)
		head := requestHead{"POST", "/v1/chat/completions?a=1", []Field{{"authorization", "Bearer a"}}}
		sealed, err := sealRequest(key.PublicKey().Bytes(), head, body)
		if err != nil {
			t.Fatal(err)
		}
		o := openRequestAs(key, sealed.data, 1000)
		if o.first != nil || o.err != nil || !bytes.Equal(o.body, body) || !reflect.DeepEqual(o.head, head) {
			t.Fatal(length, o.first, o.err)
		}
	}
}
