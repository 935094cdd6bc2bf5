// Command xwing is Go's HPKE with X-Wing as the peer of the verifier's: each line of its input is a JSON object with
// what to do, each line of its output the result.
package main

import (
	"crypto/hpke"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
)

type message map[string]string

func main() {
	log.SetFlags(0)
	decoder, encoder := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var asked message
		err := decoder.Decode(&asked)
		if errors.Is(err, io.EOF) {
			return
		}
		answer := message{}
		if err == nil {
			err = run(asked, answer)
		}
		if err != nil {
			log.Fatal(err)
		}
		if err := encoder.Encode(answer); err != nil {
			log.Fatal(err)
		}
	}
}

func run(asked, answer message) error {
	kem, kdf, aead := hpke.MLKEM768X25519(), hpke.HKDFSHA256(), hpke.AES256GCM()
	bytesOf := func(name string) []byte {
		data, err := hex.DecodeString(asked[name])
		if err != nil {
			log.Fatal(err)
		}
		return data
	}
	if asked["do"] == "seal" {
		key, err := kem.NewPublicKey(bytesOf("public_key"))
		if err != nil {
			return err
		}
		enc, sender, err := hpke.NewSender(key, kdf, aead, bytesOf("info"))
		if err != nil {
			return err
		}
		sealed, err := sender.Seal(nil, bytesOf("plaintext"))
		answer["enc"], answer["sealed"] = hex.EncodeToString(enc), hex.EncodeToString(sealed)
		return err
	}
	key, err := kem.NewPrivateKey(bytesOf("private_key"))
	if err != nil {
		return err
	}
	answer["public_key"] = hex.EncodeToString(key.PublicKey().Bytes())
	if asked["do"] == "public" {
		return nil
	}
	recipient, err := hpke.NewRecipient(bytesOf("enc"), key, kdf, aead, bytesOf("info"))
	if err != nil {
		return err
	}
	plaintext, err := recipient.Open(nil, bytesOf("sealed"))
	answer["plaintext"] = hex.EncodeToString(plaintext)
	return err
}
