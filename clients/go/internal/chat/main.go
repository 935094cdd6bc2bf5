// Command chat asks a question over the sealed transport, streamed and not, for the tests of the real server. The
// environment names address, policy and verifier; it prints JSON.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"strings"

	assay "assay.invalid/client"
)

type choice struct {
	Message, Delta struct{ Content string }
}

func main() {
	log.SetFlags(0)
	url := os.Getenv("ASSAY_URL")
	verifier := &assay.Verifier{Policy: os.Getenv("ASSAY_POLICY")}
	check(json.Unmarshal([]byte(os.Getenv("ASSAY_VERIFIER")), &verifier.Command))
	out := map[string]any{}

	refused, err := assay.NewTransport(url, assay.Options{Judge: verifier})
	check(err)
	_, err = (&http.Client{Transport: refused}).Get(url + "/v1/models")
	if own := (*assay.Error)(nil); errors.As(err, &own) {
		out["refused"] = own.Code
	}

	simulated := *verifier
	simulated.Arguments = []string{"--allow-simulated"}
	receipts := []string{}
	transport, err := assay.NewTransport(url, assay.Options{
		Judge: &simulated, Receipts: "rolling",
		OnReceipt: func(opened *assay.Opened) {
			receipts = append(receipts, opened.Receipt.Channel.Kind+" "+opened.Receipt.End)
		},
	})
	check(err)
	client := &http.Client{Transport: transport}
	ask := func(stream bool) io.ReadCloser {
		body, err := json.Marshal(map[string]any{
			"model": "demo-chat", "temperature": 0, "stream": stream,
			"messages": []any{map[string]any{"role": "user", "content": os.Getenv("QUESTION")}},
		})
		check(err)
		response, err := client.Post(url+"/v1/chat/completions", "application/json", bytes.NewReader(body))
		check(err)
		if response.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(response.Body)
			log.Fatalf("%s %s", response.Status, text)
		}
		return response.Body
	}

	whole := ask(false)
	var answer struct{ Choices []choice }
	check(json.NewDecoder(whole).Decode(&answer))
	check(whole.Close())
	out["whole"] = answer.Choices[0].Message.Content

	streamed := ask(true)
	text, pieces, done := "", 0, false
	lines := bufio.NewScanner(streamed)
	for lines.Scan() {
		data, isData := strings.CutPrefix(lines.Text(), "data: ")
		if done = done || data == "[DONE]"; !isData || done {
			continue
		}
		var event struct{ Choices []choice }
		check(json.Unmarshal([]byte(data), &event))
		if len(event.Choices) > 0 && event.Choices[0].Delta.Content != "" {
			text += event.Choices[0].Delta.Content
			pieces++
		}
	}
	check(lines.Err())
	if !done {
		log.Fatal("the stream has no end")
	}
	out["streamed"], out["pieces"], out["receipts"] = text, pieces, receipts
	check(json.NewEncoder(os.Stdout).Encode(out))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
