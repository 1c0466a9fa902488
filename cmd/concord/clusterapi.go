package main

import "context"

// answerOf asks a member for one thing of Concord's HTTP API.
func answerOf[A any](ctx context.Context, g *globals, method, path string, request any) (answer A, err error) {
	c, err := g.connect()
	if err != nil {
		return answer, err
	}
	defer c.Close()
	err = c.Ask(ctx, method, path, request, &answer)
	return answer, err
}
