// Package causes has the catalogue of known causes of slow starts: small rules, each
// with what it looks for, why that takes time and where its source says so, and what to
// do. catalogue.go lists them; the files beside it have a layer's rules each.
//
// A rule names a cause only if the spans show it. Where it infers, it says so. It reads
// a start of package critical; docs/explain.md has the catalogue, and which seeded
// causes the rules find.
package causes
