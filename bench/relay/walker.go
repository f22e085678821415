package main

import "encoding/binary"

// walker follows the frames of one direction of a connection through reads of any size. It looks
// at the five bytes of each header (a type and a length that counts itself) and skips the rest.
type walker struct {
	header [5]byte
	have   int // bytes of header seen
	rest   int // bytes of the body still to come, once the header is whole
}

// walk calls end with the type of each message whose last byte is in b.
func (w *walker) walk(b []byte, end func(kind byte)) {
	for {
		if w.have < len(w.header) {
			n := copy(w.header[w.have:], b)
			w.have += n
			b = b[n:]
			if w.have < len(w.header) {
				return
			}
			w.rest = int(binary.BigEndian.Uint32(w.header[1:])) - 4
		}
		n := min(w.rest, len(b))
		w.rest -= n
		b = b[n:]
		if w.rest > 0 {
			return
		}
		w.have = 0
		end(w.header[0])
	}
}
