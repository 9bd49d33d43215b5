// Command crdvalidator judges manifests as the API server does, with the API server's own code and without one running.
//
//	crdvalidator CRD.yaml < requests.jsonl > verdicts.jsonl
//
// The first line of the output judges the CustomResourceDefinition itself: is its schema structural, do its rules compile, what may
// they cost. Each line of the input, {"object": …, "old": …} (old may be left out), then gets a line: the errors, the fields that
// would be pruned, and the object as it would be stored. It leaves with 1 where the definition is refused, and 2 where it cannot be read.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

type fieldError struct {
	Path    string `json:"path"`
	Message string `json:"message"`
	Type    string `json:"type"`
}

type definitionVerdict struct {
	Errors     []fieldError `json:"errors"`
	Rules      []ruleCost   `json:"rules"`
	TotalCost  uint64       `json:"totalCost"`
	TotalLimit uint64       `json:"totalLimit"`
	RuleLimit  uint64       `json:"ruleLimit"`
}

type ruleCost struct {
	Path        string `json:"path"`
	Rule        string `json:"rule"`
	Cost        uint64 `json:"cost"`
	MessageCost uint64 `json:"messageCost"`
}

type request struct {
	Object map[string]interface{} `json:"object"`
	Old    map[string]interface{} `json:"old"`
}

type verdict struct {
	Errors  []fieldError           `json:"errors"`
	Unknown []string               `json:"unknown"`
	Cost    int64                  `json:"cost"`
	Object  map[string]interface{} `json:"object"`
}

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: crdvalidator CRD.yaml < requests.jsonl"))
	}
	definition, err := load(os.Args[1])
	if err != nil {
		fail(err)
	}
	out := json.NewEncoder(os.Stdout)
	own := judgeDefinition(definition)
	if err := out.Encode(own); err != nil {
		fail(err)
	}
	if len(own.Errors) > 0 {
		os.Exit(1)
	}
	j, err := newJudge(definition)
	if err != nil {
		fail(err)
	}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 1 {
			var r request
			if err := utiljson.Unmarshal(line, &r); err != nil {
				fail(err)
			}
			if err := out.Encode(j.judge(r)); err != nil {
				fail(err)
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

func load(path string) (*apiextensions.CustomResourceDefinition, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	external := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(text, external); err != nil {
		return nil, err
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(external)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&external.Spec)
	internal := &apiextensions.CustomResourceDefinition{}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(external, internal, nil); err != nil {
		return nil, err
	}
	for _, version := range internal.Spec.Versions {
		if version.Storage {
			internal.Status.StoredVersions = []string{version.Name}
		}
	}
	return internal, nil
}

func schemaOf(definition *apiextensions.CustomResourceDefinition) *apiextensions.JSONSchemaProps {
	if definition.Spec.Validation != nil {
		return definition.Spec.Validation.OpenAPIV3Schema
	}
	return definition.Spec.Versions[0].Schema.OpenAPIV3Schema
}

func toErrors(errs field.ErrorList) []fieldError {
	found := []fieldError{}
	for _, err := range errs {
		found = append(found, fieldError{Path: err.Field, Message: err.ErrorBody(), Type: string(err.Type)})
	}
	return found
}
