package assay

import "io"

// answerBody gives content out, and io.EOF only when all of it holds.
type answerBody struct {
	answer *answered
	check  *StreamCheck
	held   []byte
	err    error
}

// fill reads up to most bytes; b.err is io.EOF where that is all.
func (b *answerBody) fill(most int) error {
	if b.err == nil {
		rest, err := readContent(b.answer.opened, most)
		b.held, b.err = append(b.held, rest...), err
	}
	if b.err == io.EOF {
		return nil
	}
	return b.err
}

func (b *answerBody) more() error {
	for len(b.held) == 0 && b.err == nil {
		content, err := b.answer.opened.next()
		if b.check == nil {
			b.held, b.err = content, err
			continue
		}
		switch err {
		case nil:
			b.held, b.err = b.check.Push(content)
		case io.EOF:
			if b.held, b.err = b.check.End(); b.err == nil {
				b.err = io.EOF
			}
		default:
			b.err = err
		}
	}
	return b.err
}

func (b *answerBody) Read(into []byte) (int, error) {
	b.more()
	if len(b.held) > 0 {
		count := copy(into, b.held)
		b.held = b.held[count:]
		return count, nil
	}
	return 0, b.err
}

func (b *answerBody) Close() error { return b.answer.body.Close() }

// readContent reads up to about most bytes, or all of it with a negative bound; io.EOF: to the end.
func readContent(opened *openedResponse, most int) (content []byte, err error) {
	for most < 0 || len(content) <= most {
		piece, err := opened.next()
		if err != nil {
			return content, err
		}
		content = append(content, piece...)
	}
	return content, nil
}
