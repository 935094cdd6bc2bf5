package assay

// Receipts against the answers they came with (docs/receipts.md §3, §4). A whole answer is held until its
// receipt holds; a stream passes as it comes, and what ends it is withheld until the last receipt holds.

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
)

// Expected is what a client knows of its request and of the server, to hold a receipt against.
type Expected struct {
	ReceiptKey []byte
	// Channel nil: not compared, and then a nonce is needed.
	Channel *Channel
	// Models: id → SHA-256 in hex, as the evidence shows them.
	Models map[string]string
	// Model the request names; empty where it names none.
	Model, Method, Path string
	BodyDigest          []byte
	Nonce               []byte
}

// Opened is a last receipt that holds, its bytes and the salt of its answer.
type Opened struct {
	Receipt    *Receipt
	Data, Salt []byte
}

var (
	computing = regexp.MustCompile(`^(?:(?:/v1)?/(?:chat/completions|completions|responses|embeddings|rerank)` +
		`|/v1/(?:messages|reranking|audio/transcriptions|audio/translations))$`)
	receiptItem = regexp.MustCompile(`^:([A-Za-z0-9+/]+={0,2}):;salt=:([A-Za-z0-9+/]+={0,2}):$`)
)

func asksForReceipt(method, path string) bool {
	if end := strings.IndexAny(path, "?#"); end >= 0 {
		path = path[:end]
	}
	// Servers route the path percent-decoded.
	if decoded, err := url.PathUnescape(path); err == nil {
		path = decoded
	}
	return method == "POST" && computing.MatchString(path)
}

func checkReceipt(receipt *Receipt, expected *Expected) error {
	switch {
	case !bytes.Equal(receipt.ReceiptKey, expected.ReceiptKey):
		return refuse("receipt_key", "the receipt is by another key than the evidence shows")
	case expected.Nonce == nil && expected.Channel == nil:
		return refuse("receipt_nonce", "without evidence of this connection a nonce is needed")
	case expected.Nonce != nil && !(receipt.hasNonce && bytes.Equal(receipt.Nonce, expected.Nonce)):
		return refuse("receipt_nonce", "the receipt answers another nonce, or none")
	case expected.Channel != nil && receipt.Channel != *expected.Channel:
		return refuse("receipt_evidence", "the answer went another way than this request")
	case expected.Model != "" && receipt.ModelID != expected.Model:
		return refuse("receipt_model", "another model answered than was asked")
	case expected.Models[receipt.ModelID] != hex.EncodeToString(receipt.ModelSHA256):
		return refuse("receipt_model", "the model has other bytes than the evidence shows")
	}
	return nil
}

func checkFinal(receipt *Receipt, salt []byte, expected *Expected) error {
	if err := checkReceipt(receipt, expected); err != nil {
		return err
	}
	if receipt.Method != expected.Method || receipt.Path != expected.Path ||
		!bytes.Equal(receipt.Body, commitment(salt, fieldBody, 0, expected.BodyDigest)) {
		return refuse("receipt_request", "the receipt is of another request")
	}
	return nil
}

func checkTranscript(receipt *Receipt, salt, digest []byte, events uint64) error {
	if receipt.Events != events || !bytes.Equal(receipt.Transcript, commitment(salt, fieldTranscript, 0, digest)) {
		return refuse("receipt_transcript", "the receipt covers another answer than arrived")
	}
	return nil
}

// usage is what an answer reports; nil: it does not.
type usage struct{ prompt, completion *float64 }

func checkUsage(receipt *Receipt, reported *usage) error {
	if reported == nil {
		return nil
	}
	if reported.prompt != nil && *reported.prompt != float64(receipt.PromptTokens) ||
		reported.completion != nil && *reported.completion != float64(receipt.CompletionTokens) {
		return refuse("receipt_usage", "the answer reports another number of tokens")
	}
	return nil
}

func usageIn(answer []byte) *usage {
	outer := objectOf(answer)
	inner := outer
	for _, name := range []string{"message", "response"} {
		if object, ok := outer[name].(map[string]any); ok {
			inner = object
		}
	}
	counts, ok := inner["usage"].(map[string]any)
	if !ok {
		return nil
	}
	number := func(names ...string) *float64 {
		var sum *float64
		for _, name := range names {
			if value, ok := counts[name].(float64); ok {
				if sum == nil {
					sum = new(float64)
				}
				*sum += value
			}
		}
		return sum
	}
	prompt := number("prompt_tokens")
	if prompt == nil {
		prompt = number("input_tokens", "cache_read_input_tokens")
	}
	return &usage{prompt, number("completion_tokens", "output_tokens")}
}

func objectOf(text []byte) map[string]any {
	var object map[string]any
	if json.Unmarshal(text, &object) != nil {
		return nil
	}
	return object
}

// CheckAnswer is the verdict on an answer that was not streamed, by the SHA-256 of its body.
func CheckAnswer(data, salt, answerDigest []byte, expected *Expected) (*Opened, error) {
	receipt, err := OpenReceipt(data)
	if err != nil {
		return nil, err
	}
	if !receipt.Final {
		return nil, refuse("receipt_truncated", "the last receipt is a checkpoint")
	}
	if err := checkFinal(receipt, salt, expected); err != nil {
		return nil, err
	}
	if err := checkTranscript(receipt, salt, answerDigest, 0); err != nil {
		return nil, err
	}
	if receipt.End == "aborted" {
		return nil, refuse("receipt_truncated", "the receipt says that the answer was broken off")
	}
	return &Opened{receipt, data, salt}, nil
}

// An answer with its header assay-receipt, status and usage included.
func checkWhole(fields []Field, status int, body []byte, expected *Expected) (*Opened, error) {
	header, has := fieldOf(fields, "assay-receipt")
	if !has {
		return nil, refuse("receipt_missing", "the answer has no receipt")
	}
	item := receiptItem.FindStringSubmatch(header)
	if item == nil {
		return nil, badReceiptForm()
	}
	data, err := base64.StdEncoding.Strict().DecodeString(item[1])
	if err != nil {
		return nil, badReceiptForm()
	}
	salt, err := base64.StdEncoding.Strict().DecodeString(item[2])
	if err != nil {
		return nil, badReceiptForm()
	}
	opened, err := CheckAnswer(data, salt, sha256Of(body), expected)
	if err != nil {
		return nil, err
	}
	if opened.Receipt.Status != status || (status >= 400) != (opened.Receipt.End == "error") {
		return nil, refuse("receipt_transcript", "the receipt is of an answer with another status")
	}
	if opened.Receipt.End == "complete" {
		return opened, checkUsage(opened.Receipt, usageIn(body))
	}
	return opened, nil
}

func badReceiptForm() error {
	return refuse("receipt_malformed", "the answer has a receipt of another form")
}
