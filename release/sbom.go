package main

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// writeSBOM writes the bill of materials of an architecture's programs, as CycloneDX.
func (r *release) writeSBOM(path, arch string, modules []linkedModule) error {
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{
		Timestamp: r.time.Format(time.RFC3339),
		Component: &cdx.Component{
			Type: cdx.ComponentTypeApplication, BOMRef: "shimtrace", Name: "shimtrace", Version: r.version,
			PackageURL: "pkg:golang/github.com/shimtrace/shimtrace@" + r.version + "?goarch=" + arch + "&goos=linux",
			Licenses:   licenses("Apache-2.0"),
		},
	}
	var components []cdx.Component
	var refs []string
	for _, m := range modules {
		purl := "pkg:golang/" + m.Path + "@" + m.Version
		c := cdx.Component{Type: cdx.ComponentTypeLibrary, BOMRef: purl, Name: m.Path, Version: m.Version, PackageURL: purl, Licenses: licenses(m.License)}
		// A module's sum is "h1:" and the SHA-256, in base64, of a list of its files.
		if sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(sum) == 32 {
			c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum)}}
		}
		components, refs = append(components, c), append(refs, purl)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: "shimtrace", Dependencies: &refs}}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = cdx.NewBOMEncoder(f, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func licenses(expression string) *cdx.Licenses {
	return &cdx.Licenses{{Expression: expression}}
}
