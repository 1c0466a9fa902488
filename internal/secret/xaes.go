package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
)

// Sizes of XAES-256-GCM, in bytes.
const (
	xaesNonce    = 24
	xaesOverhead = 16
)

// xaes is XAES-256-GCM: a key of its own for each half nonce, so that random
// nonces may be drawn for 2^80 messages, where those of plain AES-GCM begin to
// collide after 2^32. A beacon a second from each process of a cluster, on every
// interface, is past that within the life of a secret.
// Source: https://c2sp.org/XAES-256-GCM (which follows NIST SP 800-108r1, KDF in
// counter mode with CMAC).
type xaes struct {
	block cipher.Block
	k1    [aes.BlockSize]byte
}

func newXAES(key []byte) (*xaes, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("a key of %d bytes for XAES-256-GCM, not 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	x := &xaes{block: block}
	block.Encrypt(x.k1[:], x.k1[:])
	var carry byte
	for i := len(x.k1) - 1; i >= 0; i-- {
		carry, x.k1[i] = x.k1[i]>>7, x.k1[i]<<1|carry
	}
	x.k1[len(x.k1)-1] ^= carry * 0x87 // without a branch on the key
	return x, nil
}

func (*xaes) NonceSize() int { return xaesNonce }
func (*xaes) Overhead() int  { return xaesOverhead }

// derive makes the AES-256-GCM of one nonce.
func (x *xaes) derive(nonce []byte) cipher.AEAD {
	key := make([]byte, 2*aes.BlockSize)
	for i := range 2 {
		half := key[i*aes.BlockSize:][:aes.BlockSize]
		copy(half, []byte{0, byte(i + 1), 'X', 0})
		copy(half[4:], nonce[:12])
		subtle.XORBytes(half, half, x.k1[:])
		x.block.Encrypt(half, half)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // of 32 bytes: it is not refused
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // of AES: it is not refused
	}
	return aead
}

// Seal implements [cipher.AEAD].
func (x *xaes) Seal(dst, nonce, plaintext, additional []byte) []byte {
	if len(nonce) != xaesNonce {
		panic("a nonce of XAES-256-GCM has 24 bytes")
	}
	return x.derive(nonce).Seal(dst, nonce[12:], plaintext, additional)
}

// Open implements [cipher.AEAD].
func (x *xaes) Open(dst, nonce, ciphertext, additional []byte) ([]byte, error) {
	if len(nonce) != xaesNonce {
		panic("a nonce of XAES-256-GCM has 24 bytes")
	}
	return x.derive(nonce).Open(dst, nonce[12:], ciphertext, additional)
}
