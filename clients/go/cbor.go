package assay

// Deterministic CBOR (RFC 8949 §4.2.1), the part that signed receipts use: uint64, []byte, string, bool, nil,
// []any and map[any]any with keys uint64 or string. What is read must be byte-equal to what is written of it.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sort"
	"unicode/utf8"
)

var errCBOR = errors.New("not one canonical item")

const (
	maxCBORDepth  = 8
	maxCBORValues = 16384
)

func encodeCBOR(value any) []byte {
	switch v := value.(type) {
	case nil:
		return []byte{0xf6}
	case bool:
		if v {
			return []byte{0xf5}
		}
		return []byte{0xf4}
	case uint64:
		return cborHead(0x00, v)
	case []byte:
		return append(cborHead(0x40, uint64(len(v))), v...)
	case string:
		return append(cborHead(0x60, uint64(len(v))), v...)
	case []any:
		out := cborHead(0x80, uint64(len(v)))
		for _, item := range v {
			out = append(out, encodeCBOR(item)...)
		}
		return out
	case map[any]any:
		pairs := make([][2][]byte, 0, len(v))
		for key, item := range v {
			pairs = append(pairs, [2][]byte{encodeCBOR(key), encodeCBOR(item)})
		}
		sort.Slice(pairs, func(i, j int) bool { return bytes.Compare(pairs[i][0], pairs[j][0]) < 0 })
		out := cborHead(0xa0, uint64(len(pairs)))
		for _, pair := range pairs {
			out = append(append(out, pair[0]...), pair[1]...)
		}
		return out
	}
	panic("a value that has no place in this CBOR")
}

func cborHead(major byte, argument uint64) []byte {
	switch {
	case argument < 24:
		return []byte{major | byte(argument)}
	case argument < 1<<8:
		return []byte{major | 24, byte(argument)}
	case argument < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{major | 25}, uint16(argument))
	case argument < 1<<32:
		return binary.BigEndian.AppendUint32([]byte{major | 26}, uint32(argument))
	}
	return binary.BigEndian.AppendUint64([]byte{major | 27}, argument)
}

func decodeCBOR(data []byte) (any, error) {
	r := &cborReader{data: data}
	value, err := r.item(0)
	if err != nil {
		return nil, err
	}
	if len(r.data) > 0 || !bytes.Equal(encodeCBOR(value), data) {
		return nil, errCBOR
	}
	return value, nil
}

type cborReader struct {
	data   []byte
	values int
}

func (r *cborReader) take(length uint64) ([]byte, error) {
	if length > uint64(len(r.data)) {
		return nil, errCBOR
	}
	taken := r.data[:length:length]
	r.data = r.data[length:]
	return taken, nil
}

func (r *cborReader) item(depth int) (any, error) {
	r.values++
	initial, err := r.take(1)
	if err != nil || depth > maxCBORDepth || r.values > maxCBORValues {
		return nil, errCBOR
	}
	switch initial[0] {
	case 0xf4, 0xf5:
		return initial[0] == 0xf5, nil
	case 0xf6:
		return nil, nil
	}
	major, low := initial[0]>>5, initial[0]&31
	if low > 27 || major == 1 || major >= 6 {
		return nil, errCBOR
	}
	argument := uint64(low)
	if low >= 24 {
		wide, err := r.take(1 << (low - 24))
		if err != nil {
			return nil, err
		}
		argument = 0
		for _, each := range wide {
			argument = argument<<8 | uint64(each)
		}
	}
	if argument > maxSafe {
		return nil, errCBOR
	}
	switch major {
	case 0:
		return argument, nil
	case 2:
		return r.take(argument)
	case 3:
		text, err := r.take(argument)
		if err != nil || !utf8.Valid(text) {
			return nil, errCBOR
		}
		return string(text), nil
	}
	if argument > uint64(len(r.data)) {
		return nil, errCBOR
	}
	if major == 4 {
		list := make([]any, argument)
		for i := range list {
			if list[i], err = r.item(depth + 1); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	pairs := map[any]any{}
	for range argument {
		key, err := r.item(depth + 1)
		if err != nil {
			return nil, err
		}
		switch key.(type) {
		case uint64, string:
		default:
			return nil, errCBOR
		}
		if _, twice := pairs[key]; twice {
			return nil, errCBOR
		}
		if pairs[key], err = r.item(depth + 1); err != nil {
			return nil, err
		}
	}
	return pairs, nil
}
