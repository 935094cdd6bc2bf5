package assay

// Sealed requests and responses (docs/sealed.md; RFC 9458 with draft-ietf-ohai-chunked-ohttp-08).

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/bits"
	"time"
)

const (
	requestType   = "message/ohttp-chunked-req"
	responseType  = "message/ohttp-chunked-res"
	requestLabel  = "message/bhttp chunked request"
	responseLabel = "message/bhttp chunked response"

	maxChunkBytes        = 16384
	tagBytes             = 16
	keyBytes             = 32
	responseNonceBytes   = 32
	entryBytes           = 16
	minPaddedBytes       = 2048
	maxResponseHeadBytes = 64 * 1024

	aes128 = 0x0001
	aes256 = 0x0002
)

var final = []byte("final")

// Points of small order of Curve25519 (RFC 7748 §6.1), without the bit that X25519 ignores.
var smallOrder = func() map[string]bool {
	points := map[string]bool{}
	for _, text := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		point, _ := hex.DecodeString(text)
		points[string(point)] = true
	}
	return points
}()

func isUsablePoint(key []byte) bool {
	if len(key) != keyBytes {
		return false
	}
	masked := append([]byte(nil), key...)
	masked[31] &= 0x7f
	return !smallOrder[string(masked)]
}

type sealedRequest struct {
	data, enc []byte
	export    func(label string, length int) ([]byte, error)
	// SHA-256(recipient's public key ‖ encapsulated key): key 7 of its receipt; the entry begins with it.
	digest [32]byte
	// When it was sealed: seconds of sealed time, and by the clock of this process.
	at       int64
	sealedAt time.Time
}

func keyIDOf(publicKey []byte) byte { return sha256Of(publicKey)[0] % 128 }

func requestHeader(keyID byte, aead uint16) []byte {
	out := []byte{keyID}
	for _, id := range []uint16{0x0020, 0x0001, aead} {
		out = binary.BigEndian.AppendUint16(out, id)
	}
	return out
}

func requestInfo(header []byte) []byte { return append([]byte(requestLabel+"\x00"), header...) }

// The Padmé size of a message, at least 2048 bytes (docs/sealed.md [B6]).
func paddedLength(length int) int {
	size := max(length, minPaddedBytes)
	exponent := bits.Len(uint(size)) - 1
	step := 1 << (exponent - bits.Len(uint(exponent)))
	return (size + step - 1) / step * step
}

func sealRequest(publicKey []byte, head requestHead, content []byte) (*sealedRequest, error) {
	if !isUsablePoint(publicKey) {
		return nil, malformed("the public key is no point of X25519 that can be used")
	}
	first, err := encodeRequestHead(head)
	if err != nil {
		return nil, err
	}
	key, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(publicKey)
	if err != nil {
		return nil, malformed("the public key cannot be used")
	}
	header := requestHeader(keyIDOf(publicKey), aes256)
	enc, sender, err := hpke.NewSender(key, hpke.HKDFSHA256(), hpke.AES256GCM(), requestInfo(header))
	if err != nil {
		return nil, malformed("the public key cannot be used")
	}
	rest := append(appendVarint(nil, len(content)), content...)
	rest = append(rest, make([]byte, paddedLength(len(first)+len(rest)+1)-len(first)-len(rest))...)
	out := append(append([]byte(nil), header...), enc...)
	add := func(plain []byte, last bool) error {
		var aad []byte
		if last {
			aad = final
		}
		sealed, err := sender.Seal(aad, plain)
		length := len(sealed)
		if last {
			length = 0
		}
		out = append(appendVarint(out, length), sealed...)
		return err
	}
	if err := add(first, false); err != nil {
		return nil, err
	}
	for at := 0; at < len(rest); at += maxChunkBytes {
		end := min(at+maxChunkBytes, len(rest))
		if err := add(rest[at:end], end == len(rest)); err != nil {
			return nil, err
		}
	}
	digest := sha256.Sum256(append(append([]byte(nil), publicKey...), enc...))
	return &sealedRequest{data: out, enc: enc, export: sender.Export, digest: digest}, nil
}

// chunkReader takes sealed chunks from a stream.
type chunkReader struct{ source io.Reader }

// next gives a chunk and whether it is the final one, which reaches to the end.
func (c chunkReader) next(most int) (sealed []byte, last bool, err error) {
	var head [8]byte
	if err := c.fill(head[:1]); err != nil {
		return nil, false, err
	}
	size := 1 << (head[0] >> 6)
	if err := c.fill(head[1:size]); err != nil {
		return nil, false, err
	}
	length, _, err := readVarint(head[:size])
	switch {
	case err != nil:
		return nil, false, err
	case length == 0:
		sealed, err := io.ReadAll(io.LimitReader(c.source, maxChunkBytes+tagBytes+1))
		if len(sealed) > maxChunkBytes+tagBytes {
			return nil, false, malformed("the final chunk is over its size")
		}
		if err != nil || len(sealed) < tagBytes {
			return nil, false, truncated()
		}
		return sealed, true, nil
	case length <= tagBytes:
		return nil, false, malformed("a chunk that is not the final one is empty")
	case length > most+tagBytes:
		return nil, false, malformed("a chunk is over its size")
	}
	sealed = make([]byte, length)
	return sealed, false, c.fill(sealed)
}

func (c chunkReader) fill(into []byte) error {
	if _, err := io.ReadFull(c.source, into); err != nil {
		return truncated()
	}
	return nil
}

// openedResponse is a response whose head opened. next gives content, and io.EOF only after the final chunk.
type openedResponse struct {
	head    responseHead
	chunks  chunkReader
	aead    cipher.AEAD
	nonce   []byte
	counter uint64
	content *contentReader
	held    []byte
	ended   bool
	err     error
}

func openResponse(
	enc []byte, export func(string, int) ([]byte, error), source io.Reader, nonceBytes int,
) (*openedResponse, error) {
	nonce := make([]byte, nonceBytes)
	o := &openedResponse{chunks: chunkReader{source}}
	if err := o.chunks.fill(nonce); err != nil {
		return nil, err
	}
	if err := o.derive(enc, export, nonce); err != nil {
		return nil, err
	}
	var plain []byte
	for {
		opened, err := o.open()
		if err != nil {
			return nil, err
		}
		plain = append(plain, opened...)
		head, err := decodeResponseHead(plain)
		if err == nil && head == nil && o.ended {
			// Empty sections at the end may be left out (RFC 9292 §3.8), those of a head too.
			plain = append(plain, 0)
			if head, err = decodeResponseHead(plain); err == nil && (head == nil || head.next != len(plain)) {
				err = malformed("the response ends inside its head")
			}
		}
		if err != nil {
			return nil, err
		}
		if head == nil {
			if len(plain) > maxResponseHeadBytes {
				return nil, malformed("the head of the response is too long")
			}
			continue
		}
		o.head = *head
		o.content = &contentReader{indeterminate: head.indeterminate}
		o.held, o.err = o.content.push(plain[head.next:])
		o.finish()
		return o, nil
	}
}

func (o *openedResponse) derive(enc []byte, export func(string, int) ([]byte, error), nonce []byte) error {
	secret, err := export(responseLabel, len(nonce))
	if err != nil {
		return err
	}
	prk, err := hkdf.Extract(sha256.New, secret, append(append([]byte(nil), enc...), nonce...))
	if err != nil {
		return err
	}
	key, err := hkdf.Expand(sha256.New, prk, "key", len(nonce))
	if err != nil {
		return err
	}
	if o.nonce, err = hkdf.Expand(sha256.New, prk, "nonce", 12); err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	o.aead, err = cipher.NewGCM(block)
	return err
}

func (o *openedResponse) open() ([]byte, error) {
	sealed, last, err := o.chunks.next(maxChunkBytes)
	if err != nil {
		return nil, err
	}
	var aad []byte
	if last {
		aad = final
	}
	nonce := append([]byte(nil), o.nonce...)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^o.counter)
	o.counter++
	opened, err := o.aead.Open(nil, nonce, sealed, aad)
	if err != nil {
		return nil, altered()
	}
	o.ended = last
	return opened, nil
}

func (o *openedResponse) finish() {
	if o.err == nil && o.ended {
		if o.err = o.content.end(); o.err == nil {
			o.err = io.EOF
		}
	}
}

func (o *openedResponse) next() ([]byte, error) {
	for len(o.held) == 0 && o.err == nil {
		opened, err := o.open()
		if err != nil {
			o.err = err
			break
		}
		o.held, o.err = o.content.push(opened)
		o.finish()
	}
	if len(o.held) > 0 {
		held := o.held
		o.held = nil
		return held, nil
	}
	return nil, o.err
}

func sha256Of(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}
