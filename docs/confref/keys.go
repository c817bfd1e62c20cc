// Copyright The Plexus Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"go/ast"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// key is a row of a table.
type key struct {
	Name string
	// Type is what JSON calls it.
	Type string
	// Default is what counts where the key is left out, as JSON; "" where the meaning says it.
	Default string
	Meaning string
}

// keys are those of a struct's JSON, the ones of objects in it as "outer.inner". Meanings are the comments of the fields, and end with the
// default where there is one: "Default: VALUE."
func (f *folder) keys(structName string) ([]key, error) {
	s, err := f.structType(structName)
	if err != nil {
		return nil, err
	}
	return f.fields(s, "")
}

func (f *folder) fields(s *ast.StructType, prefix string) ([]key, error) {
	var keys []key
	for _, field := range s.Fields.List {
		if len(field.Names) == 0 {
			// What is embedded is of all plugins.
			keys = append(keys, key{Name: "", Meaning: text(field.Doc)})
			continue
		}
		name, err := jsonName(field)
		if err != nil {
			return nil, err
		}
		k, err := f.key(prefix+name, field)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", field.Names[0].Name, err)
		}
		keys = append(keys, k)
		inner, ok := field.Type.(*ast.StructType)
		if name, isName := field.Type.(*ast.Ident); isName && k.Type == "object" {
			if inner, err = f.structType(name.Name); err != nil {
				return nil, err
			}
			ok = true
		}
		if !ok {
			continue
		}
		below, err := f.fields(inner, prefix+name+".")
		if err != nil {
			return nil, err
		}
		keys = append(keys, below...)
	}
	return keys, nil
}

func jsonName(field *ast.Field) (string, error) {
	if field.Tag == nil {
		return "", fmt.Errorf("field %s has no tag", field.Names[0].Name)
	}
	tag, err := strconv.Unquote(field.Tag.Value)
	if err != nil {
		return "", fmt.Errorf("field %s: %w", field.Names[0].Name, err)
	}
	name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	return name, nil
}

// constantName is how a comment has the value of a constant.
var constantName = regexp.MustCompile(`\[(\w+)\]`)

func (f *folder) key(name string, field *ast.Field) (key, error) {
	meaning := text(field.Doc)
	if meaning == "" {
		return key{}, errors.New("it has no comment, which is its documentation")
	}
	var errs []error
	meaning = constantName.ReplaceAllStringFunc(meaning, func(ref string) string {
		value, err := f.constant(strings.Trim(ref, "[]"))
		errs = append(errs, err)
		return value
	})
	if err := errors.Join(errs...); err != nil {
		return key{}, err
	}
	k := key{Name: name, Type: jsonType(field.Type), Meaning: meaning}
	if before, value, ok := strings.Cut(meaning, " Default: "); ok {
		k.Meaning, k.Default = before, asJSON(strings.TrimSuffix(value, "."), k.Type)
	} else if k.Type == "true or false" {
		if _, isPointer := field.Type.(*ast.StarExpr); !isPointer {
			k.Default = "false"
		}
	}
	return k, nil
}

func asJSON(value, jsonType string) string {
	switch jsonType {
	case "string":
		return strconv.Quote(value)
	case "list of strings":
		return "[" + strconv.Quote(value) + "]"
	}
	return value
}

// jsonType is what the author of JSON calls a Go type.
func jsonType(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return jsonType(e.X)
	case *ast.ArrayType:
		return "list of " + jsonType(e.Elt) + "s"
	case *ast.Ident:
		switch e.Name {
		case "string":
			return "string"
		case "bool":
			return "true or false"
		case "int":
			return "number"
		}
	}
	return "object"
}

// annotationKeys are the constants whose names end with Key, and their comments.
func (f *folder) annotationKeys() ([]key, error) {
	var keys []key
	var errs []error
	f.specs(func(spec ast.Spec) {
		v, ok := spec.(*ast.ValueSpec)
		if !ok || len(v.Names) != 1 || !strings.HasSuffix(v.Names[0].Name, "Key") || !v.Names[0].IsExported() {
			return
		}
		value, err := f.constant(v.Names[0].Name)
		errs = append(errs, err)
		meaning := strings.TrimPrefix(text(v.Doc), v.Names[0].Name+" ")
		for _, other := range keys { // comments name constants, and readers know the keys
			meaning = strings.ReplaceAll(meaning, other.Type, other.Name)
		}
		if meaning == "" {
			errs = append(errs, fmt.Errorf("constant %s has no comment", v.Names[0].Name))
			return
		}
		keys = append(keys, key{Name: value, Type: v.Names[0].Name, Meaning: strings.ToUpper(meaning[:1]) + meaning[1:]})
	})
	return keys, errors.Join(errs...)
}
