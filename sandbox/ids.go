package sandbox

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// hash derives bytes from the seed, the request's number and their purpose. The same requests to a
// sandbox with the same seed get the same responses.
func (c *call) hash(what string, i int) [sha256.Size]byte {
	text := binary.BigEndian.AppendUint64(nil, c.options.Seed)
	text = binary.BigEndian.AppendUint64(text, c.number)
	text = binary.BigEndian.AppendUint64(text, uint64(i))
	return sha256.Sum256(append(text, what...))
}

// uuid returns an id in the form of a UUID version 4.
func (c *call) uuid(what string, i int) string {
	h := c.hash(what, i)
	h[6] = h[6]&0x0f | 0x40
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// secret returns an opaque string for a token.
func (c *call) secret(what string) string {
	h := c.hash(what, 0)
	return base64.RawURLEncoding.EncodeToString(h[:])
}

// chance returns a random number generator for this request.
func (c *call) chance(what string) *rand.Rand {
	return rand.New(rand.NewChaCha8(c.hash(what, 0)))
}
