// Checks an exported log directory with the unmodified golang.org/x/mod/sumdb/note and sumdb/tlog:
// AUDIT-LOG 9.8. The only mapping is that of tile paths, tile/8/L/N there and tile/L/N here.
//
// usage: sumdb DIRECTORY VERIFIER-KEY [OLD-SIZE OLD-ROOT-BASE64]
//
// Prints "ok SIZE", or the first thing that is wrong and exits 1.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func check(err error, what string) {
	if err != nil {
		fmt.Printf("%s: %v\n", what, err)
		os.Exit(1)
	}
}

// parse reads the three lines of a checkpoint; tlog.ParseTree wants the fixed first line of sum.golang.org.
func parse(text string) (origin string, tree tlog.Tree) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		check(fmt.Errorf("%d lines", len(lines)-1), "checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err, "checkpoint")
	root, err := tlog.ParseHash(lines[2])
	check(err, "checkpoint")
	return lines[0], tlog.Tree{N: size, Hash: root}
}

type tiles struct{ directory string }

func (t tiles) Height() int { return 8 }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(t.directory, path))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// records reads the entry bundles: paths as of level 0, each record after its length in 16 bits.
func records(directory string, size int64) [][]byte {
	var all [][]byte
	for n := int64(0); n*256 < size; n++ {
		width := size - n*256
		if width > 256 {
			width = 256
		}
		path := tlog.Tile{H: 8, L: 0, N: n, W: int(width)}.Path()
		bundle, err := os.ReadFile(filepath.Join(directory, strings.Replace(path, "tile/8/0/", "tile/entries/", 1)))
		check(err, "entries")
		for i := int64(0); i < width; i++ {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				check(fmt.Errorf("cut off at %d", n*256+i), "entries")
			}
			length := int(binary.BigEndian.Uint16(bundle))
			all = append(all, bundle[2:2+length])
			bundle = bundle[2+length:]
		}
		if len(bundle) != 0 {
			check(fmt.Errorf("%d octets after %d", len(bundle), n*256+width), "entries")
		}
	}
	return all
}

func main() {
	directory, key := os.Args[1], os.Args[2]
	verifier, err := note.NewVerifier(key)
	check(err, "key")
	signed, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	check(err, "checkpoint")
	opened, err := note.Open(signed, note.VerifierList(verifier))
	check(err, "checkpoint")
	origin, tree := parse(opened.Text)
	if origin != verifier.Name() {
		check(fmt.Errorf("%q is not %q", origin, verifier.Name()), "origin")
	}

	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var hashes []tlog.Hash
		for _, index := range indexes {
			hashes = append(hashes, stored[index])
		}
		return hashes, nil
	})
	for index, record := range records(directory, tree.N) {
		hashes, err := tlog.StoredHashes(int64(index), record, reader)
		check(err, "entries")
		stored = append(stored, hashes...)
	}
	if tree.N == 0 {
		fmt.Println("ok 0") // this version of tlog refuses the empty tree's hash
		return
	}
	root, err := tlog.TreeHash(tree.N, reader)
	check(err, "root")
	if root != tree.Hash {
		check(fmt.Errorf("%v, not %v", root, tree.Hash), "root of the entries")
	}

	// From here on everything comes from the tiles, each checked against the root by tlog itself.
	fromTiles := tlog.TileHashReader(tree, tiles{directory})
	for _, index := range []int64{0, tree.N / 3, tree.N / 2, tree.N - 1} {
		proof, err := tlog.ProveRecord(tree.N, index, fromTiles)
		check(err, "inclusion")
		leaf := stored[tlog.StoredHashIndex(0, index)]
		check(tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf), "inclusion")
	}
	for index := int64(0); index < tree.N; index += 256 {
		_, err := fromTiles.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		check(err, "tiles")
	}
	if len(os.Args) == 5 {
		size, err := strconv.ParseInt(os.Args[3], 10, 64)
		check(err, "old size")
		old, err := tlog.ParseHash(os.Args[4])
		check(err, "old root")
		proof, err := tlog.ProveTree(tree.N, size, fromTiles)
		check(err, "consistency")
		check(tlog.CheckTree(proof, tree.N, tree.Hash, size, old), "consistency")
	}
	fmt.Printf("ok %d\n", tree.N)
}
