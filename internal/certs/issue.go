package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Lifetimes of what an [Authority] makes, when nobody asks for others. An
// authority is to outlive the machines; a certificate is to be renewed by
// routine, and no browser or phone takes one of a server that holds longer than
// 825 days (Apple, "Requirements for trusted certificates in iOS 13").
const (
	AuthorityLife   = 10 * 365 * 24 * time.Hour
	CertificateLife = 365 * 24 * time.Hour
)

// skew is how long before now certificates begin to hold: clocks differ.
const skew = time.Hour

// maxName is the longest common name (RFC 5280, appendix A.1, ub-common-name).
const maxName = 64

// Names of an authority's files in its directory.
const (
	authorityCert = "ca.pem"
	authorityKey  = "ca.key"
)

// Authority signs certificates. Its keys are ECDSA on P-256, which every client
// takes. It is made by [NewAuthority] or [OpenAuthority].
type Authority struct {
	cert *x509.Certificate
	der  []byte
	key  crypto.Signer
}

// NewAuthority makes an authority, and its files ca.pem and ca.key in dir, which
// it makes if it is missing. A file that is there is an error that wraps
// [fs.ErrExist], and left alone.
func NewAuthority(dir, name string, life time.Duration) (*Authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(name, life)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.MaxPathLenZero = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	a := &Authority{cert: cert, der: der, key: key}
	return a, newPair(filepath.Join(dir, authorityCert), filepath.Join(dir, authorityKey), der, key)
}

// OpenAuthority opens the authority whose files ca.pem and ca.key are in dir.
func OpenAuthority(dir string) (*Authority, error) {
	path, keyPath := filepath.Join(dir, authorityCert), filepath.Join(dir, authorityKey)
	if err := CheckSecret(keyPath); err != nil {
		return nil, err
	}
	pair, err := loadPair(path, keyPath)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%s is no certificate of an authority", path)
	}
	return &Authority{cert: pair.Leaf, der: pair.Certificate[0], key: key}, nil
}

// Certificate is what an [Authority] is asked to sign.
type Certificate struct {
	// Name is the common name: for a client the user.
	Name string
	// Hosts are the names and IP addresses at which a server is reached. A
	// certificate without any is a client's.
	Hosts []string
	// Server and Client say which side of a connection it is for; at least one.
	Server, Client bool
	// Life is how long it holds; 0 means [CertificateLife]. It ends with the
	// authority at the latest.
	Life time.Duration
}

// Issue makes a key and a certificate for it, in files of their own. A file that
// is there is an error that wraps [fs.ErrExist], and left alone.
func (a *Authority) Issue(cert, key string, c Certificate) error {
	private, err := newKey()
	if err != nil {
		return err
	}
	der, err := a.sign(private.Public(), c)
	if err != nil {
		return err
	}
	return newPair(cert, key, der, private)
}

// Renew puts a new certificate for the same key, names and purposes into the
// place of one that is there, in one step. life is as in [Certificate]. It
// returns until when it holds.
func (a *Authority) Renew(cert, key string, life time.Duration) (time.Time, error) {
	if err := CheckSecret(key); err != nil {
		return time.Time{}, err
	}
	old, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return time.Time{}, fmt.Errorf("renew %s: %w", cert, err)
	}
	private, ok := old.PrivateKey.(crypto.Signer)
	if !ok || old.Leaf.IsCA {
		return time.Time{}, fmt.Errorf("renew %s: it is no certificate that an authority has issued", cert)
	}
	c := Certificate{Name: old.Leaf.Subject.CommonName, Hosts: old.Leaf.DNSNames, Life: life}
	for _, ip := range old.Leaf.IPAddresses {
		c.Hosts = append(c.Hosts, ip.String())
	}
	for _, use := range old.Leaf.ExtKeyUsage {
		c.Server = c.Server || use == x509.ExtKeyUsageServerAuth
		c.Client = c.Client || use == x509.ExtKeyUsageClientAuth
	}
	der, err := a.sign(private.Public(), c)
	if err != nil {
		return time.Time{}, err
	}
	if err := writePEM(cert, "CERTIFICATE", der); err != nil {
		return time.Time{}, fmt.Errorf("renew %s: %w", cert, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return time.Time{}, fmt.Errorf("renew %s: %w", cert, err)
	}
	return leaf.NotAfter, nil
}

func (a *Authority) sign(public crypto.PublicKey, c Certificate) ([]byte, error) {
	if c.Name == a.cert.Subject.CommonName {
		// OpenSSL takes such a certificate for one that has signed itself.
		return nil, fmt.Errorf("the name %q is the authority's own; give the certificate another", c.Name)
	}
	life := c.Life
	if life == 0 {
		life = CertificateLife
	}
	template, err := newTemplate(c.Name, life)
	if err != nil {
		return nil, err
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	if !template.NotAfter.After(time.Now()) {
		return nil, fmt.Errorf("the authority %q holds only until %s; make a new one", a.cert.Subject.CommonName, a.cert.NotAfter.Format(time.DateTime))
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if c.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if c.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if err := addHosts(template, c.Hosts); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %q: %w", c.Name, err)
	}
	return der, nil
}

// addHosts adds subject alternative names.
func addHosts(template *x509.Certificate, hosts []string) error {
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		name := strings.TrimPrefix(host, "*.")
		if _, err := mail.ParseAddress("x@" + name); err != nil || strings.ContainsAny(name, ":/[]()*, ") {
			return fmt.Errorf("%q is no name of a host and no IP address", host)
		}
		template.DNSNames = append(template.DNSNames, host)
	}
	return nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// newTemplate is a certificate without a purpose.
func newTemplate(name string, life time.Duration) (*x509.Certificate, error) {
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, fmt.Errorf("the name %q of a certificate has 1 to %d bytes of printable text", name, maxName)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life), BasicConstraintsValid: true,
	}, nil
}

// newPair writes a certificate and its key where there are none. The key comes
// first: with the certificate both are there.
func newPair(cert, key string, der []byte, private crypto.Signer) error {
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("encode a key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(cert), 0o700); err != nil {
		return err
	}
	if _, err := os.Lstat(cert); err == nil {
		return &fs.PathError{Op: "make", Path: cert, Err: fs.ErrExist}
	}
	if err := WriteNew(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		return err
	}
	return WriteNew(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// WriteNew makes a file that was not there, durable and whole: an error that
// wraps [fs.ErrExist] means that one is there, and was left alone. mode holds
// whatever the umask is.
func WriteNew(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path) // half of it is worse than none
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// ExposedError tells that a file with a secret can be read by others than its
// owner.
type ExposedError struct {
	Path string
	Mode fs.FileMode
}

// Error names the file, and the next step.
func (e *ExposedError) Error() string {
	return fmt.Sprintf("%s can be read by others (mode %04o); chmod 600 %[1]s, and change the secret if somebody may have read it", e.Path, e.Mode.Perm())
}

// CheckSecret returns an [ExposedError] when the file at path has a secret that
// everybody on the machine, or a group of users, may read or change, as ssh
// does. Groups may read, not change, where the file is root's: so orchestrators
// give secrets to processes. What is no file, such as a pipe, is not judged.
func CheckSecret(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	mode := info.Mode()
	if !mode.IsRegular() || mode.Perm()&0o077 == 0 {
		return nil
	}
	if mode.Perm()&0o037 == 0 && ownedByRoot(info) {
		return nil
	}
	return &ExposedError{Path: path, Mode: mode}
}
