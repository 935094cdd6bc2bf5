package assay

// Binary HTTP (RFC 9292) as sealed bodies use it (docs/sealed.md §3, §4), strict and bounded.

import (
	"encoding/binary"
	"regexp"
	"strings"
)

// Field is a name in lower case and a value, a byte a character (latin1).
type Field struct{ Name, Value string }

type requestHead struct {
	method, path string
	fields       []Field
}

type responseHead struct {
	status        int
	fields        []Field
	indeterminate bool
	// Offset behind the head.
	next int
}

const (
	maxHeadBytes = 12 * 1024
	headStep     = 1024
	padName      = "assay-pad"
	maxFields    = 100
	maxTextBytes = 64 * 1024
	maxSafe      = 1<<53 - 1
)

var (
	tokenPattern = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	namePattern  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9a-z-]+$")
	refusedNames = map[string]bool{
		"host": true, "connection": true, "keep-alive": true, "te": true, "trailer": true, "expect": true,
		"transfer-encoding": true, "upgrade": true, "cookie": true, "forwarded": true, "x-real-ip": true,
	}
)

func isRefusedInside(name string) bool {
	return refusedNames[name] || strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "proxy-")
}

// RFC 9110 §5.5: visible bytes, blanks inside.
func isValue(value string) bool {
	for i := 0; i < len(value); i++ {
		blank := value[i] == ' ' || value[i] == '\t'
		if blank && (i == 0 || i == len(value)-1) || !blank && (value[i] < 0x21 || value[i] == 0x7f) {
			return false
		}
	}
	return true
}

func isPath(path string) bool {
	for i := 0; i < len(path); i++ {
		if path[i] < 0x21 || path[i] > 0x7e || path[i] == '#' {
			return false
		}
	}
	return strings.HasPrefix(path, "/")
}

// The shortest encoding of RFC 9000 §16.
func appendVarint(out []byte, value int) []byte {
	switch {
	case value < 1<<6:
		return append(out, byte(value))
	case value < 1<<14:
		return binary.BigEndian.AppendUint16(out, 0x4000|uint16(value))
	case value < 1<<30:
		return binary.BigEndian.AppendUint32(out, 0x80000000|uint32(value))
	}
	return binary.BigEndian.AppendUint64(out, 0xc000000000000000|uint64(value))
}

// readVarint gives the integer and its size; size 0 when the bytes end first.
func readVarint(data []byte) (value, size int, err error) {
	if len(data) == 0 {
		return 0, 0, nil
	}
	size = 1 << (data[0] >> 6)
	if size > len(data) {
		return 0, 0, nil
	}
	wide := uint64(data[0] & 0x3f)
	for _, each := range data[1:size] {
		wide = wide<<8 | uint64(each)
	}
	if wide > maxSafe {
		return 0, 0, malformed("a length is over 2^53-1")
	}
	return int(wide), size, nil
}

func appendText(out []byte, text string) []byte {
	return append(appendVarint(out, len(text)), text...)
}

// Known length, filled to a multiple of 1024 bytes.
func encodeRequestHead(head requestHead) ([]byte, error) {
	control := appendVarint(nil, 0)
	for _, text := range []string{head.method, "https", "", head.path} {
		control = appendText(control, text)
	}
	var lines []byte
	for _, field := range head.fields {
		lines = appendText(appendText(lines, field.Name), field.Value)
	}
	name := appendText(nil, padName)
	// The two lengths that depend on the padding always have two bytes.
	bare := len(control) + 2 + len(lines) + len(name) + 2
	zeros := (headStep - bare%headStep) % headStep
	if bare+zeros > maxHeadBytes {
		return nil, malformed("the head is larger than is sent")
	}
	out := binary.BigEndian.AppendUint16(control, 0x4000|uint16(len(lines)+len(name)+2+zeros))
	out = append(append(out, lines...), name...)
	out = binary.BigEndian.AppendUint16(out, 0x4000|uint16(zeros))
	out = append(out, strings.Repeat("0", zeros)...)
	_, _, err := decodeRequestHead(out)
	return out, err
}

// A head that fills data, and whether its content is of indeterminate length.
func decodeRequestHead(data []byte) (head requestHead, indeterminate bool, err error) {
	if len(data) > maxHeadBytes {
		return head, false, malformed("the head is too long")
	}
	r := &headReader{data: data}
	framing := r.varint()
	if r.ok() && framing != 0 && framing != 2 {
		return head, false, malformed("the framing indicator is not one of a request")
	}
	head.method = r.text()
	scheme := r.text()
	r.text()
	head.path = r.text()
	fields := r.fields(framing == 2)
	switch {
	case r.err != nil:
		return head, false, r.err
	case r.short:
		return head, false, malformed("the head is cut")
	case r.at != len(data):
		return head, false, malformed("the head is not alone in its chunk")
	case !tokenPattern.MatchString(head.method):
		return head, false, malformed("the method is no token")
	case scheme != "https":
		return head, false, malformed("the scheme is not https")
	case !isPath(head.path):
		return head, false, malformed("the path is no absolute path without fragment")
	}
	seen := map[string]bool{}
	for _, field := range fields {
		if isRefusedInside(field.Name) {
			return head, false, malformed("there is a field that a sealed request cannot have")
		}
		if seen[field.Name] {
			return head, false, malformed("a field is there twice")
		}
		seen[field.Name] = true
		if field.Name != padName {
			head.fields = append(head.fields, field)
		} else if strings.Trim(field.Value, "0") != "" {
			return head, false, malformed("the padding of the head is not zeros")
		}
	}
	return head, framing == 2, nil
}

// The head at the beginning of data; nil when more bytes are needed.
func decodeResponseHead(data []byte) (*responseHead, error) {
	r := &headReader{data: data}
	framing := r.varint()
	if r.ok() && framing != 1 && framing != 3 {
		return nil, malformed("the framing indicator is not one of a response")
	}
	status := r.varint()
	if r.ok() && (status < 200 || status > 599) {
		return nil, malformed("the status is none of a final response")
	}
	fields := r.fields(framing == 3)
	if r.err != nil {
		return nil, r.err
	}
	if r.short {
		return nil, nil
	}
	return &responseHead{status, fields, framing == 3, r.at}, nil
}

type headReader struct {
	data  []byte
	at    int
	short bool
	err   error
}

func (r *headReader) ok() bool { return !r.short && r.err == nil }

func (r *headReader) varint() int {
	if !r.ok() {
		return 0
	}
	value, size, err := readVarint(r.data[r.at:])
	r.err, r.short = err, err == nil && size == 0
	r.at += size
	return value
}

func (r *headReader) text() string {
	length := r.varint()
	if !r.ok() {
		return ""
	}
	if length > maxTextBytes {
		r.err = malformed("a text of a head is too long")
		return ""
	}
	if length > len(r.data)-r.at {
		r.short = true
		return ""
	}
	r.at += length
	return string(r.data[r.at-length : r.at])
}

func (r *headReader) fields(indeterminate bool) (fields []Field) {
	end := -1
	if !indeterminate {
		length := r.varint()
		if r.ok() && length > len(r.data)-r.at {
			r.short = true
		}
		end = r.at + length
	}
	for r.ok() && (indeterminate || r.at < end) {
		name := r.text()
		if r.ok() && indeterminate && name == "" {
			return fields
		}
		value := r.text()
		if !r.ok() {
			return fields
		}
		if !namePattern.MatchString(name) || !isValue(value) {
			r.err = malformed("a field has a name or a value that none may have")
		}
		if fields = append(fields, Field{name, value}); len(fields) > maxFields {
			r.err = malformed("there are too many fields")
		}
	}
	if r.ok() && r.at != end {
		r.err = malformed("a field reaches beyond its section")
	}
	return fields
}

// contentReader takes the bytes behind a head, in any pieces: content, an empty section, zeros.
type contentReader struct {
	indeterminate bool
	state         int
	left          int
	held          []byte
	begun         bool
}

const (
	atLength = iota
	inContent
	atTrailers
	inPadding
)

func (c *contentReader) push(data []byte) (content []byte, err error) {
	rest := append(c.held, data...)
	c.held = nil
	for len(rest) > 0 {
		switch c.state {
		case inContent:
			taken := min(c.left, len(rest))
			content = append(content, rest[:taken]...)
			rest = rest[taken:]
			if c.left -= taken; c.left == 0 {
				c.state = atTrailers
				if c.indeterminate {
					c.state = atLength
				}
			}
		case inPadding:
			for _, each := range rest {
				if each != 0 {
					return content, malformed("the padding is not zeros")
				}
			}
			return content, nil
		default:
			value, size, err := readVarint(rest)
			if err != nil {
				return content, err
			}
			if size == 0 {
				c.held = append([]byte(nil), rest...)
				return content, nil
			}
			rest = rest[size:]
			if c.state == atTrailers {
				if value != 0 {
					return content, malformed("there are trailers")
				}
				c.state = inPadding
				continue
			}
			c.begun, c.left, c.state = true, value, inContent
			if value == 0 {
				c.state = atTrailers
			}
		}
	}
	return content, nil
}

func (c *contentReader) end() error {
	nothing := c.state == atLength && !c.begun
	if len(c.held) > 0 || !(nothing || c.state == atTrailers || c.state == inPadding) {
		return malformed("the message ends inside its content")
	}
	return nil
}

func fieldOf(fields []Field, name string) (string, bool) {
	for _, field := range fields {
		if field.Name == name {
			return field.Value, true
		}
	}
	return "", false
}
