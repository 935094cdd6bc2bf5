package assay

import (
	"bytes"
	"sync"
)

const (
	maxChains = 64
	maxPlaces = 1024
)

// sequence is the order of the receipts a client was given (docs/receipts.md §2). Answers that ran side by side
// arrive in another order than they ended in, so an order is refused only where a client asked for that. Two
// receipts of one place are always refused.
type sequence struct {
	mutex  sync.Mutex
	chains map[string]*placesOf
	order  []string
}

type placesOf struct {
	digests map[uint64][]byte
	order   []uint64
}

// note says whether the receipt before this one was not seen, although others of its chain were.
func (s *sequence) note(receipt *Receipt, digest []byte) (apart bool, err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	known := s.chains[receipt.Chain]
	if known == nil {
		if s.chains == nil {
			s.chains = map[string]*placesOf{}
		}
		known = &placesOf{digests: map[uint64][]byte{}}
		s.chains[receipt.Chain] = known
		s.order = append(s.order, receipt.Chain)
		if len(s.order) > maxChains {
			delete(s.chains, s.order[0])
			s.order = s.order[1:]
		}
	}
	first := len(known.digests) == 0
	same, taken := known.digests[receipt.Seq]
	before, follows := []byte(nil), false
	if receipt.Seq > 0 {
		before, follows = known.digests[receipt.Seq-1]
	}
	if taken && !bytes.Equal(same, digest) || follows && !bytes.Equal(before, receipt.Prev) {
		return false, refuse("receipt_sequence", "two receipts claim the same place of their chain (%d)", receipt.Seq)
	}
	if !taken {
		known.digests[receipt.Seq] = digest
		known.order = append(known.order, receipt.Seq)
		if len(known.order) > maxPlaces {
			delete(known.digests, known.order[0])
			known.order = known.order[1:]
		}
	}
	return !first && !follows && receipt.Seq > 0, nil
}
