package assay

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// headOf gives all fields but those of the connection and of this protocol.
func headOf(request *http.Request, content []byte) requestHead {
	path := request.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	if request.URL.RawQuery != "" {
		path += "?" + request.URL.RawQuery
	}
	method := request.Method
	if method == "" {
		method = http.MethodGet
	}
	head := requestHead{method: method, path: path}
	for key, values := range request.Header {
		name := strings.ToLower(key)
		if isRefusedInside(name) || name == "content-length" || name == "accept-encoding" ||
			strings.HasPrefix(name, "assay-sealed-") || name == "assay-model" || name == padName {
			continue
		}
		head.fields = append(head.fields, Field{name, strings.TrimSpace(strings.Join(values, ", "))})
	}
	if len(content) > 0 || head.method != http.MethodGet && head.method != http.MethodHead {
		head.fields = append(head.fields, Field{"content-length", strconv.Itoa(len(content))})
	}
	return head
}

// Of a part, with whatever fields it has; not of a file that is called so.
var formModel = regexp.MustCompile(
	"(?i)[;\\s]name=\"?model\"?(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]+)\r\n")

// The model a request names; empty where it names none. The server reads the body itself.
func modelOf(fields []Field, content []byte) string {
	kind, _ := fieldOf(fields, "content-type")
	kind = strings.ToLower(kind)
	if strings.HasPrefix(kind, "multipart/form-data") {
		if found := formModel.FindSubmatch(content); found != nil {
			return string(found[1])
		}
		return ""
	}
	if !strings.HasPrefix(kind, "application/json") {
		return ""
	}
	model, _ := objectOf(content)["model"].(string)
	return model
}
