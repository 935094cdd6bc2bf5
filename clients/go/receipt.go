package assay

// Signed receipts, assay/receipt/v1 (docs/receipts.md §1, §2): form, signature, commitments.

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/big"
	"regexp"
)

const (
	receiptLabel    = "assay/receipt/v1"
	maxReceiptBytes = 4096
)

// The fields of a commitment.
const (
	fieldBody       = 1
	fieldTranscript = 3
)

var (
	protected   = append([]byte{0xa2, 0x01, 0x27, 0x03}, encodeCBOR("application/vnd.assay.receipt+cbor")...)
	wordPattern = regexp.MustCompile("^[a-z][a-z0-9_]{0,63}$")
	versionText = regexp.MustCompile("^assay/receipt/v[0-9]{1,9}$")
	fieldPrime  = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	groupOrder  = bigOf("7237005577332262213973186563042994240857116359379907606001950938285454250989")
	orderEight  = bigOf("2707385501144840649318225287225658788936804267575313519463743609750303402022")
)

func bigOf(text string) *big.Int {
	value, _ := new(big.Int).SetString(text, 10)
	return value
}

// Channel is key 7: the way an answer went.
type Channel struct {
	// Kind is attested, sealed or none.
	Kind string
	// Claims and Report of an attested connection, or Request of a sealed request: SHA-256.
	Claims, Report, Request string
}

// Receipt is the content of a receipt whose signature holds.
type Receipt struct {
	Final                bool
	ID, Prev, ReceiptKey []byte
	// Chain is random per boot and caller: 16 bytes.
	Chain                           string
	Seq                             uint64
	Channel                         Channel
	ModelID                         string
	ModelSHA256                     []byte
	Status                          int
	Events                          uint64
	Transcript                      []byte
	End, ErrorCode                  string
	Nonce, LastCheckpoint           []byte
	Method, Path                    string
	Body                            []byte
	PromptTokens, CompletionTokens  uint64
	hasError, hasNonce, hasLastMark bool
}

// OpenReceipt gives the content once the signature by the key it names holds; whether that key is one to trust
// is for the caller. Errors: receipt_malformed, receipt_version, receipt_signature.
func OpenReceipt(data []byte) (*Receipt, error) {
	if len(data) > maxReceiptBytes {
		return nil, wrongReceipt("is too large")
	}
	value, err := decodeCBOR(data)
	parts, ok := value.([]any)
	if err != nil || !ok || len(parts) != 4 {
		return nil, wrongReceipt("is no canonical COSE_Sign1 of four parts")
	}
	header, headerOK := parts[0].([]byte)
	unprotected, unprotectedOK := parts[1].(map[any]any)
	payload, payloadOK := parts[2].([]byte)
	signature, signatureOK := parts[3].([]byte)
	switch {
	case !headerOK || !bytes.Equal(header, protected):
		return nil, wrongReceipt("has another protected header")
	case !unprotectedOK || len(unprotected) > 0:
		return nil, wrongReceipt("has an unprotected header that is not empty")
	case !payloadOK || !signatureOK || len(signature) != ed25519.SignatureSize:
		return nil, wrongReceipt("has no payload, or no signature of 64 bytes")
	}
	receipt, err := readReceipt(payload)
	if err != nil {
		return nil, err
	}
	signed := encodeCBOR([]any{"Signature1", protected, []byte{}, payload})
	if !isStrictPoint(receipt.ReceiptKey) || !isStrictPoint(signature[:32]) ||
		littleEndian(signature[32:]).Cmp(groupOrder) >= 0 ||
		!ed25519.Verify(receipt.ReceiptKey, signed, signature) {
		return nil, refuse("receipt_signature", "the receipt is not signed by the key it names")
	}
	return receipt, nil
}

func littleEndian(data []byte) *big.Int {
	reversed := make([]byte, len(data))
	for i, each := range data {
		reversed[len(data)-1-i] = each
	}
	return new(big.Int).SetBytes(reversed)
}

// RFC 8032 §5.1.7, as far as y tells: one encoding, not of small order. Libraries disagree about the others.
func isStrictPoint(data []byte) bool {
	y := littleEndian(data)
	y.SetBit(y, 255, 0)
	one := big.NewInt(1)
	return len(data) == 32 && y.Cmp(fieldPrime) < 0 && y.Cmp(one) > 0 &&
		y.Cmp(new(big.Int).Sub(fieldPrime, one)) != 0 && y.Cmp(orderEight) != 0 &&
		y.Cmp(new(big.Int).Sub(fieldPrime, orderEight)) != 0
}

func fieldSalt(salt []byte, field, choice byte) []byte {
	mac := hmac.New(sha256.New, salt)
	mac.Write(append([]byte("assay/salt/v1"), field, choice))
	return mac.Sum(nil)
}

// The commitment of a field to bytes with this SHA-256 (docs/receipts.md §2).
func commitment(salt []byte, field, choice byte, digest []byte) []byte {
	out := append([]byte("assay/commit/v1"), field, choice)
	return sha256Of(append(append(out, fieldSalt(salt, field, choice)...), digest...))
}

func readReceipt(payload []byte) (*Receipt, error) {
	value, err := decodeCBOR(payload)
	fields, ok := value.(map[any]any)
	if err != nil || !ok {
		return nil, wrongReceipt("has a payload that is no canonical map")
	}
	if label, _ := fields[uint64(0)].(string); label != receiptLabel {
		if versionText.MatchString(label) {
			return nil, refuse("receipt_version", "the receipt is of the version %s", label)
		}
		return nil, wrongReceipt("is of another domain")
	}
	r := &bodyReader{}
	out := &Receipt{}
	kind := r.uint(fields[uint64(1)])
	out.Final = kind == 1
	needed, allowed := []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12}, []uint64{15}
	if out.Final {
		needed, allowed = []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, []uint64{15, 16, 17}
	}
	r.require(kind <= 1, "is neither checkpoint nor final")
	r.closed(fields, needed, allowed)
	if r.err != nil {
		return nil, r.err
	}
	at := func(key uint64) any { return fields[key] }
	out.ID, out.Prev, out.ReceiptKey = r.bytes(at(2), 16), r.bytes(at(5), 32), r.bytes(at(6), 32)
	r.bytes(at(3), 16)
	out.Chain, out.Seq = string(r.bytes(at(3), 16)), r.uint(at(4))
	r.require((out.Seq == 0) == bytes.Equal(out.Prev, make([]byte, 32)), "names one before it if and only if it is not the first")
	r.channel(at(7), out)
	r.model(at(8), out)
	r.engine(at(9))
	r.outcome(at(12), out)
	r.require(out.Final == (out.End != ""), "has an end if and only if it is final")
	if nonce, has := fields[uint64(15)]; has {
		out.Nonce, out.hasNonce = r.anyBytes(nonce), true
		r.require(len(out.Nonce) >= 16 && len(out.Nonce) <= 32, "nonce is not 16 to 32 bytes")
	}
	if out.Final {
		r.request(at(10), out)
		if at(11) != nil {
			r.sampling(at(11))
		}
		usage, times := r.numbered(at(13), 3), r.numbered(at(14), 2)
		out.PromptTokens, out.CompletionTokens = r.uint(usage[0]), r.uint(usage[1])
		r.uint(usage[2])
		r.require(r.uint(times[0]) <= r.uint(times[1]), "finished before it was received")
		if mark, has := fields[uint64(16)]; has {
			out.LastCheckpoint, out.hasLastMark = r.bytes(mark, 32), true
		}
		if head, has := fields[uint64(17)]; has {
			r.bytes(head, 32)
		}
	}
	return out, r.err
}

// bodyReader keeps the first fault; every method goes on with zero values after it.
type bodyReader struct{ err error }

func (r *bodyReader) require(holds bool, what string) {
	if !holds && r.err == nil {
		r.err = wrongReceipt(what)
	}
}

func (r *bodyReader) closed(fields map[any]any, needed, allowed []uint64) {
	known := map[any]bool{}
	for _, key := range needed {
		_, has := fields[key]
		r.require(has, "lacks a key")
		known[key] = true
	}
	for _, key := range allowed {
		known[key] = true
	}
	for key := range fields {
		r.require(known[key], "has an unknown key")
	}
}

func (r *bodyReader) mapOf(value any) map[any]any {
	fields, ok := value.(map[any]any)
	r.require(ok, "has something in place of a map")
	return fields
}

// The values of a map with the keys 0 to count - 1 and no other.
func (r *bodyReader) numbered(value any, count uint64) []any {
	fields := r.mapOf(value)
	keys := make([]uint64, count)
	values := make([]any, count)
	for i := range keys {
		keys[i] = uint64(i)
		values[i] = fields[uint64(i)]
	}
	r.closed(fields, keys, nil)
	return values
}

func (r *bodyReader) list(value any, most int) []any {
	list, ok := value.([]any)
	r.require(ok && len(list) <= most, "has no list of the size that is read")
	return list
}

func (r *bodyReader) uint(value any) uint64 {
	number, ok := value.(uint64)
	r.require(ok, "has something in place of a whole number")
	return number
}

func (r *bodyReader) anyBytes(value any) []byte {
	data, ok := value.([]byte)
	r.require(ok, "has something in place of bytes")
	return data
}

func (r *bodyReader) bytes(value any, length int) []byte {
	data := r.anyBytes(value)
	r.require(len(data) == length, "has bytes of another length")
	return data
}

func (r *bodyReader) text(value any, most int) string {
	text, ok := value.(string)
	r.require(ok && len(text) <= most, "has no text of the size that is read")
	return text
}

func (r *bodyReader) word(value any) string {
	word := r.text(value, 1024)
	r.require(wordPattern.MatchString(word), "has something in place of a lower-case word")
	return word
}

func (r *bodyReader) f64(value any) float64 {
	data := r.bytes(value, 8)
	if len(data) != 8 {
		return 0
	}
	number := math.Float64frombits(binary.BigEndian.Uint64(data))
	finite := !math.IsNaN(number) && !math.IsInf(number, 0)
	r.require(finite && !(number == 0 && math.Signbit(number)), "has a number no receipt says")
	return number
}

// Every case checks its value before it keeps it, so that a fault leaves no half of a channel.
func (r *bodyReader) channel(value any, out *Receipt) {
	kind := r.uint(r.mapOf(value)[uint64(0)])
	r.require(kind <= 2, "channel is none of 0, 1, 2")
	switch kind {
	case 0:
		parts := r.numbered(value, 3)
		out.Channel = Channel{Kind: "attested", Claims: string(r.bytes(parts[1], 32)), Report: string(r.bytes(parts[2], 32))}
	case 1:
		out.Channel = Channel{Kind: "sealed", Request: string(r.bytes(r.numbered(value, 2)[1], 32))}
	case 2:
		r.numbered(value, 1)
		out.Channel = Channel{Kind: "none"}
	}
}

func (r *bodyReader) model(value any, out *Receipt) {
	parts := r.numbered(value, 5)
	out.ModelID, out.ModelSHA256 = r.text(parts[0], 1024), r.bytes(parts[2], 32)
	r.require(parts[1] == "blob" || parts[1] == "manifest", "model is neither blob nor manifest")
	for _, each := range r.list(parts[3], 8) {
		pair := r.list(each, 2)
		if r.require(len(pair) == 2, "an adapter is not [digest, scale]"); len(pair) == 2 {
			r.bytes(pair[0], 32)
			r.f64(pair[1])
		}
	}
	if parts[4] != nil {
		r.bytes(parts[4], 32)
	}
}

func (r *bodyReader) engine(value any) {
	parts := r.numbered(value, 7)
	r.text(parts[0], 1024)
	r.bytes(parts[1], 32)
	r.text(parts[2], 1024)
	r.uint(parts[3])
	r.require(r.uint(parts[4]) <= 2, "replay class is none of 0, 1, 2")
	r.uint(parts[5])
	r.uint(parts[6])
}

func (r *bodyReader) request(value any, out *Receipt) {
	parts := r.numbered(value, 4)
	out.Method, out.Path, out.Body = r.text(parts[0], 1024), r.text(parts[1], 512), r.bytes(parts[2], 32)
	if parts[3] != nil {
		r.bytes(parts[3], 32)
	}
}

func (r *bodyReader) sampling(value any) {
	fields := r.mapOf(value)
	r.closed(fields, []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, []uint64{11, 12, 13})
	for key := range uint64(7) {
		if _, whole := fields[key].(uint64); !whole {
			number := r.f64(fields[key])
			whole := number >= 0 && number == math.Floor(number) && number <= maxSafe
			r.require(!whole, "has a whole number in eight bytes")
		}
	}
	r.uint(fields[uint64(7)])
	_, given := fields[uint64(8)].(bool)
	r.require(given, "does not say whether the seed was given")
	if fields[uint64(9)] != nil {
		r.uint(fields[uint64(9)])
	}
	r.uint(fields[uint64(10)])
	for key := uint64(11); key <= 13; key++ {
		if each, has := fields[key]; has {
			r.bytes(each, 32)
		}
	}
}

func (r *bodyReader) outcome(value any, out *Receipt) {
	fields := r.mapOf(value)
	r.closed(fields, []uint64{0, 1, 2, 3, 4}, []uint64{5})
	for i, each := range r.list(fields[uint64(3)], 16) {
		parts := r.numbered(each, 5)
		r.require(r.uint(parts[0]) == uint64(i), "choices are not in order")
		if parts[1] != nil {
			r.word(parts[1])
		}
		r.uint(parts[2])
		r.bytes(parts[3], 32)
		r.bytes(parts[4], 32)
	}
	if end := fields[uint64(4)]; end != nil {
		out.End = r.text(end, 16)
		r.require(out.End == "complete" || out.End == "aborted" || out.End == "error", "has an unknown end")
	}
	code, has := fields[uint64(5)]
	r.require(has == (out.End == "error"), "has an error code if and only if it ended with an error")
	if has {
		out.ErrorCode, out.hasError = r.word(code), true
	}
	status := r.uint(fields[uint64(0)])
	r.require(status >= 100 && status <= 599, "status is no HTTP status")
	out.Status, out.Transcript, out.Events = int(status), r.bytes(fields[uint64(1)], 32), r.uint(fields[uint64(2)])
}

func wrongReceipt(what string) error { return refuse("receipt_malformed", "the receipt %s", what) }
