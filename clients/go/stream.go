package assay

// The receipts of a stream, checked while its bytes pass (docs/receipts.md §3, §4).

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"regexp"
	"strings"
	"unicode/utf8"
)

const maxEventBytes = 64 * 1024 * 1024

var idPattern = regexp.MustCompile("^[0-9a-f]{32}$")

type streamEvent struct {
	// event, other or assay.
	kind, name, data string
	words            []string
	raw              []byte
}

// eventSplitter cuts server-sent events (WHATWG HTML §9.2) into blocks, bytes unchanged.
type eventSplitter struct {
	block          []byte
	lineHas        bool
	afterCR, blank bool
}

// push calls each with every block that is whole, in its order, up to its first error.
func (s *eventSplitter) push(data []byte, each func(streamEvent) error) error {
	for _, b := range data {
		if s.afterCR {
			s.afterCR = false
			if b == '\n' {
				s.block = append(s.block, b)
				if s.blank {
					if err := s.take(each); err != nil {
						return err
					}
				}
				continue
			}
			if s.blank {
				if err := s.take(each); err != nil {
					return err
				}
			}
		}
		if s.block = append(s.block, b); len(s.block) > maxEventBytes {
			return refuse("receipt_transcript", "an event of the stream is too large")
		}
		if b != '\n' && b != '\r' {
			s.lineHas = true
			continue
		}
		s.blank = !s.lineHas
		s.lineHas = false
		if b == '\r' {
			s.afterCR = true
		} else if s.blank {
			if err := s.take(each); err != nil {
				return err
			}
		}
	}
	return nil
}

// end takes the block that a carriage return ended, and says whether nothing is left over.
func (s *eventSplitter) end(each func(streamEvent) error) (whole bool, err error) {
	if s.afterCR && s.blank {
		return true, s.take(each)
	}
	return len(s.block) == 0, nil
}

func (s *eventSplitter) take(each func(streamEvent) error) error {
	event, err := readEvent(s.block)
	s.block, s.blank, s.lineHas = nil, false, false
	if err != nil {
		return err
	}
	return each(event)
}

func readEvent(raw []byte) (event streamEvent, err error) {
	bad := func(what string) (streamEvent, error) {
		return event, refuse("receipt_transcript", "the stream has %s", what)
	}
	if !utf8.Valid(raw) {
		return bad("bytes that are not utf-8")
	}
	text := strings.ReplaceAll(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\r", "\n")
	var ours string
	var hasOurs, hasName, hasData, others bool
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case line == "":
			continue
		case strings.HasPrefix(line, ": assay-"):
			if hasOurs {
				return bad("two comments of receipts in one block")
			}
			ours, hasOurs = line, true
			continue
		}
		others = true
		if strings.HasPrefix(line, ":") {
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case field == "data" && !hasData:
			event.data, hasData = value, true
		case field == "event" && !hasName:
			event.name, hasName = value, true
		default:
			return bad("an event with a second line of data or name, or with another field")
		}
	}
	event.raw = raw
	switch {
	case hasOurs && others:
		return bad("a comment of receipts inside an event")
	case hasOurs:
		event.kind, event.words = "assay", strings.Split(strings.TrimRight(ours[2:], " \t"), " ")
	case !hasData && hasName:
		return bad("an event without data")
	case hasData:
		event.kind = "event"
	default:
		event.kind = "other"
	}
	return event, nil
}

// StreamCheck checks one stream: hand on what Push returns, and call End when nothing more comes. What they
// return beside an error may be handed on before it.
type StreamCheck struct {
	expected       *Expected
	onFinal        func(*Opened)
	accept         func(*Opened) error
	splitter       eventSplitter
	hash           hash.Hash
	events         uint64
	id, salt       []byte
	checkpoints    uint64
	lastCheckpoint []byte
	withheld       []byte
	covered        *eventRole
	usage          *usage
	final          *Opened
	ended, named   bool
	ready          []byte
}

// NewStreamCheck checks against expected; onFinal, if not nil, is called before the end is handed on.
func NewStreamCheck(expected *Expected, onFinal func(*Opened)) *StreamCheck {
	return &StreamCheck{expected: expected, onFinal: onFinal, hash: sha256.New()}
}

func (c *StreamCheck) Push(data []byte) ([]byte, error) {
	c.ready = nil
	err := c.splitter.push(data, c.take)
	return c.ready, err
}

func (c *StreamCheck) End() ([]byte, error) {
	c.ready = nil
	whole, err := c.splitter.end(c.take)
	switch {
	case err != nil:
	case c.final == nil && c.salt == nil:
		err = refuse("receipt_missing", "the stream has no receipt")
	case c.final == nil:
		err = refuse("receipt_truncated", "the stream ended before its last receipt")
	case !whole || !c.ended && c.covered == nil:
		err = refuse("receipt_truncated", "the stream ended before its last event")
	}
	return c.ready, err
}

func (c *StreamCheck) take(event streamEvent) error {
	switch event.kind {
	case "assay":
		if err := c.comment(event.words); err != nil {
			return err
		}
		if c.final != nil {
			c.ready, c.withheld = append(c.ready, c.withheld...), nil
		}
		return nil
	case "event":
		check := c.add
		if c.final != nil {
			check = c.last
		}
		if err := check(event); err != nil {
			return err
		}
	}
	if c.covered != nil && c.final == nil {
		c.withheld = append(c.withheld, event.raw...)
	} else {
		c.ready = append(c.ready, event.raw...)
	}
	return nil
}

func (c *StreamCheck) add(event streamEvent) error {
	role := roleOf(event)
	switch {
	case c.salt == nil:
		return refuse("receipt_missing", "the stream has no receipt")
	case c.covered != nil:
		return refuse("receipt_transcript", "the stream goes on after its last event")
	case role.kind == "last":
		return refuse("receipt_missing", "the stream ends without its last receipt")
	case role.kind == "doubtful":
		return refuse("receipt_transcript", "the stream has an event that ends it for some readers only")
	case role.kind == "covered":
		c.covered = &role
	}
	if c.events == 0 {
		c.named = event.name != ""
	}
	c.events++
	c.hash.Write([]byte(event.name + "\n" + event.data + "\n"))
	if strings.Contains(event.data, `"usage":{`) {
		if reported := usageIn([]byte(event.data)); reported != nil {
			c.usage = reported
		}
	}
	return nil
}

// The one event that may follow the last receipt.
func (c *StreamCheck) last(event streamEvent) error {
	receipt, role := c.final.Receipt, roleOf(event)
	// The events of a stream all have names, or none has.
	ofDialect := c.events == 0 || c.named == (event.name != "")
	if c.ended || c.covered != nil || role.kind != "last" || !ofDialect {
		return refuse("receipt_transcript", "the stream has an event that no receipt covers")
	}
	if role.isError != receipt.hasError || role.code != receipt.ErrorCode {
		return refuse("receipt_transcript", "the stream ends in another way than its receipt says")
	}
	c.ended = true
	return nil
}

func (c *StreamCheck) comment(words []string) error {
	if c.final != nil {
		return refuse("receipt_transcript", "the stream has a receipt after its last one")
	}
	switch words[0] {
	case "assay-open":
		return c.open(words[1:])
	case "assay-receipt":
		return c.receipt(words[1:])
	case "assay-tokens":
		return nil
	}
	return badReceiptForm()
}

func (c *StreamCheck) open(words []string) error {
	if c.salt != nil || len(words) != 2 || c.events > 0 || !idPattern.MatchString(words[0]) {
		return badReceiptForm()
	}
	salt, err := base64.RawURLEncoding.Strict().DecodeString(words[1])
	if err != nil || len(salt) != 32 {
		return badReceiptForm()
	}
	c.id, _ = hex.DecodeString(words[0])
	c.salt = salt
	return nil
}

func (c *StreamCheck) receipt(words []string) error {
	if c.salt == nil || len(words) != 1 {
		return badReceiptForm()
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(words[0])
	if err != nil {
		return badReceiptForm()
	}
	receipt, err := OpenReceipt(data)
	if err != nil {
		return err
	}
	if !bytes.Equal(receipt.ID, c.id) {
		return refuse("receipt_transcript", "the receipt is of another answer")
	}
	if err := checkTranscript(receipt, c.salt, c.hash.Sum(nil), c.events); err != nil {
		return err
	}
	if !receipt.Final {
		return c.checkpoint(receipt, sha256Of(data))
	}
	if err := checkFinal(receipt, c.salt, c.expected); err != nil {
		return err
	}
	if receipt.hasLastMark != (c.lastCheckpoint != nil) || !bytes.Equal(receipt.LastCheckpoint, c.lastCheckpoint) {
		return refuse("receipt_transcript", "the last receipt names another checkpoint than arrived")
	}
	if receipt.End == "aborted" {
		return refuse("receipt_truncated", "the receipt says that the answer was broken off")
	}
	if c.covered != nil && c.covered.isError != (receipt.End == "error") {
		return refuse("receipt_transcript", "the stream ends in another way than its receipt says")
	}
	if receipt.End == "complete" {
		if err := checkUsage(receipt, c.usage); err != nil {
			return err
		}
	}
	opened := &Opened{receipt, data, c.salt}
	if c.accept != nil {
		if err := c.accept(opened); err != nil {
			return err
		}
	}
	c.final = opened
	if c.onFinal != nil {
		c.onFinal(c.final)
	}
	return nil
}

func (c *StreamCheck) checkpoint(receipt *Receipt, digest []byte) error {
	if err := checkReceipt(receipt, c.expected); err != nil {
		return err
	}
	before := c.lastCheckpoint
	if before == nil {
		before = make([]byte, 32)
	}
	if receipt.Seq != c.checkpoints || !bytes.Equal(receipt.Prev, before) {
		return refuse("receipt_transcript", "the checkpoints of the stream are not in their order")
	}
	c.checkpoints++
	c.lastCheckpoint = digest
	return nil
}

// eventRole is the part that an event plays in the end of its stream.
type eventRole struct {
	// part, covered (the last of Responses), last (the one behind the last receipt), or doubtful: an end for
	// some readers only, or with more in it than an end.
	kind    string
	code    string
	isError bool
}

// Readers go by the name of an event, by the type in its data, or by how the data begins.
func roleOf(event streamEvent) eventRole {
	ifTrue := func(is bool, role eventRole) eventRole {
		if is {
			return role
		}
		return eventRole{kind: "doubtful"}
	}
	name := event.name
	if strings.HasPrefix(event.data, "[DONE]") {
		return ifTrue(name == "" && event.data == "[DONE]", eventRole{kind: "last"})
	}
	body := objectOf([]byte(event.data))
	kind, _ := body["type"].(string)
	for _, end := range []string{"response.completed", "response.incomplete", "response.failed"} {
		if name == end || kind == end {
			return ifTrue(name == kind, eventRole{kind: "covered", isError: end == "response.failed"})
		}
	}
	if name == "message_stop" || kind == "message_stop" {
		bare := name == kind
		for key, value := range body {
			_, isText := value.(string)
			bare = bare && isText && (key == "type" || key == "obfuscation")
		}
		return ifTrue(bare, eventRole{kind: "last"})
	}
	failure, isError := body["error"].(map[string]any)
	if name != "error" && kind != "error" && !isError {
		return eventRole{kind: "part"}
	}
	whole := name == "error" && kind == "error" || name == "" && len(body) == 1
	return ifTrue(whole && isError, eventRole{kind: "last", code: errorCodeOf(failure), isError: true})
}

// In the words of either API.
func errorCodeOf(failure map[string]any) string {
	code, has := failure["code"].(string)
	if details, ok := failure["details"].(map[string]any); !has && ok {
		code, _ = details["error_code"].(string)
	}
	return code
}
