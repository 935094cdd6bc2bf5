package assay

// receipts-v1.json passes, and one wrong expectation is noticed ([R24]).

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"testing"
)

func expectedOf(value any) *Expected {
	v := value.(map[string]any)
	models := map[string]string{}
	for id, digest := range v["models"].(map[string]any) {
		models[id] = digest.(string)
	}
	text := func(name string) string { s, _ := v[name].(string); return s }
	return &Expected{
		ReceiptKey: unhex(v["receipt_key"]), Models: models, Model: text("model"), Method: text("method"),
		Path: text("path"), BodyDigest: sha256Of([]byte(text("body"))), Nonce: unhex(v["nonce"]),
		Channel: &Channel{Kind: "attested", Claims: string(unhex(v["claims_sha256"])), Report: string(unhex(v["report_sha256"]))},
	}
}

func runReceipts(vectors map[string]any) (count int, failed []string) {
	same := func(name string, actual, expected any) {
		count++
		if !reflect.DeepEqual(actual, expected) {
			failed = append(failed, name)
		}
	}
	each := func(group string, run func(name string, v map[string]any)) {
		for i, vector := range vectors[group].([]any) {
			v := vector.(map[string]any)
			run(fmt.Sprint(group, ": ", i, " ", v["name"]), v)
		}
	}
	each("receipts", func(name string, v map[string]any) {
		_, err := OpenReceipt(unhex(v["receipt"]))
		same(name, codeOf(err), v["code"])
	})
	each("commitments", func(name string, v map[string]any) {
		field, choice := byte(v["field"].(float64)), byte(v["choice"].(float64))
		salt := unhex(v["salt"])
		same(name, hex.EncodeToString(fieldSalt(salt, field, choice))+
			hex.EncodeToString(commitment(salt, field, choice, sha256Of(unhex(v["bytes"])))),
			v["field_salt"].(string)+v["commitment"].(string))
	})
	each("answers", func(name string, v map[string]any) {
		answer := []byte(v["answer"].(string))
		opened, err := CheckAnswer(unhex(v["receipt"]), unhex(v["salt"]), sha256Of(answer), expectedOf(v["expected"]))
		if err == nil {
			err = checkUsage(opened.Receipt, usageIn(answer))
		}
		same(name, codeOf(err), v["code"])
	})
	for _, size := range []int{1 << 20, 1, 7} {
		each("streams", func(name string, v map[string]any) {
			check := NewStreamCheck(expectedOf(v["expected"]), nil)
			var passed []byte
			var err error
			for rest := []byte(v["stream"].(string)); len(rest) > 0 && err == nil; {
				piece := rest[:min(size, len(rest))]
				rest = rest[len(piece):]
				var ready []byte
				ready, err = check.Push(piece)
				passed = append(passed, ready...)
			}
			if err == nil {
				var ready []byte
				ready, err = check.End()
				passed = append(passed, ready...)
			}
			same(fmt.Sprint(name, " ", size), []any{string(passed), codeOf(err)}, []any{v["passed"], v["code"]})
		})
	}
	return count, failed
}

func TestReceiptVectors(t *testing.T) {
	count, failed := runReceipts(load(t, receiptVectors))
	if len(failed) > 0 || count < 220 {
		t.Fatal(count, failed)
	}
}

func TestEachWrongReceiptExpectationFails(t *testing.T) {
	for group, times := range map[string]int{"receipts": 1, "answers": 1, "streams": 3} {
		vectors := load(t, receiptVectors)
		list := vectors[group].([]any)
		for _, each := range list {
			vector := each.(map[string]any)
			if vector["code"] == "receipt_missing" {
				vector["code"] = nil
			} else {
				vector["code"] = "receipt_missing"
			}
		}
		if _, failed := runReceipts(vectors); len(failed) != times*len(list) {
			t.Fatal(group, len(failed), len(list))
		}
	}
}
